#!/usr/bin/env bash
# tokenizers 0.23.3: a WordPiece vocabulary that is trained twice on the same sentences, with the same settings, is not the same
# vocabulary. Not the ids alone differ: the set of pieces does, so a report is cut differently. Nothing takes a seed. The BPE trainer of
# the same library gives the same vocabulary each time. Train once, keep the file, and hash it into what depends on it.
#
# Seen (Linux x86-64, Python 3.11): eight processes, 200 sentences of radiology words, 60 pieces: 8 different WordPiece files with 2 to 8
# different sets of pieces, 1 BPE file.
# Exit status 0: still so. 1: WordPiece is the same in all processes now, or BPE is not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3
cat > "$work/train.py" <<'PY'
import hashlib
import random

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

random.seed(0)
words = """pleural effusion pneumothorax atelectasis consolidation cardiomegaly opacity lung left right small large no clear
costophrenic blunting""".split()
reports = [" ".join(random.choices(words, k=8)) for _ in range(200)]
kinds = {
    "wordpiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer),
    "bpe": (models.BPE(unk_token="[UNK]"), trainers.BpeTrainer),
}
for name, (model, trainer) in kinds.items():
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(reports, trainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False))
    ids = tokenizer.get_vocab()
    digests = (hashlib.sha256(repr(sorted(of)).encode()).hexdigest()[:12] for of in (ids.items(), ids))
    print(name, *digests)
PY
for _ in 1 2 3 4 5 6 7 8; do "$work/venv/bin/python" "$work/train.py"; done > "$work/seen"
count() { awk -v kind="$1" -v column="$2" '$1 == kind {print $column}' "$work/seen" | sort -u | wc -l; }
echo "tokenizers 0.23.3, 8 trainings: WordPiece: $(count wordpiece 2) vocabularies, $(count wordpiece 3) sets of pieces; BPE: $(count bpe 2)"
[ "$(count wordpiece 3)" -gt 1 ] && [ "$(count bpe 2)" -eq 1 ]
