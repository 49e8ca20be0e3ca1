"""Remedies of `pretrain`: keys of a run and options of its method, by --dry-run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.remedies import packing
from tests.remedies.scenario import Command, Place, remedy, run

RECIPES = Path(__file__).parents[2] / "configs" / "methods"
TABLES = Path(__file__).parents[2] / "configs" / "sweep"


def pretrain(method: str, *words: str, recipe: str = "demo") -> Command:
    return Command("pretrain", ["--method", method, "--dry-run", "--recipe", recipe, "out=run", *words])


# ------------------------------------------------------------------------------------------------------------ keys of a run


@remedy("with zero.stage=0: DeepSpeed starts Adam's counter off", r"set (zero.stage=1)")
def bf16_under_stage_0(place: Place) -> Command:
    return pretrain("mrm_relation", "precision=bf16", "zero.stage=0")


@remedy(
    "set zero.stage=0 and precision=fp32, or ",
    r"set (zero.stage=0 and precision=fp32)",
    {"and precision=fp32": "precision=fp32"},
)
@remedy("set zero.stage=0 and precision=fp32, or ", r"or (optim.kind=adamw)")
def an_optimizer_of_whole_weights(place: Place) -> Command:
    return pretrain("gimp", "optim.kind=lars", "zero.stage=1")


@remedy("would have to be gathered in the middle of it", r"set (zero.stage=2)")
@remedy("would have to be gathered in the middle of it", r"or less, or (compile=off)")
def compiled_blocks_of_sharded_weights(place: Place) -> Command:
    return pretrain("mae", "compile=auto", "zero.stage=3")


@remedy("not be drawn alike when it is recomputed", r"set (activation_checkpointing=false)")
@remedy("not be drawn alike when it is recomputed", r"or (compile=off)")
def compiled_blocks_that_are_recomputed(place: Place) -> Command:
    return pretrain("mae", "compile=auto", "activation_checkpointing=true")


@remedy("no sample is held back (data.val_split=", r"or set (monitor.probe.every=0)")
def looks_at_nothing_held_back(place: Place) -> Command:
    return pretrain("mae", "monitor.probe.every=10", "data.val_split=")


@remedy("that method.sections=", r"give (method\.sections=whole)")
def reports_without_that_header(place: Place) -> Command:
    return pretrain("convirt", "method.sections=impression")


@remedy("words after method.clean=", r"give (method\.min_words=1)")
def reports_of_few_words(place: Place) -> Command:
    return pretrain("convirt", "method.min_words=1000")


@remedy("of which the vocabulary knows half of the words", r"give (method\.tokenizer=null)")
def reports_in_words_of_others(place: Place) -> Command:
    (place.folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlunge\nherz\n")
    return pretrain("convirt", f"method.tokenizer={place.folder / 'vocab.txt'}")


@remedy("a triplet of an entity that is learned", r"or give (method\.leave_out=\[\])")
def triplets_of_none_that_is_learned(place: Place) -> Command:
    return pretrain("medklip", "method.leave_out=[nodule,disease,mass,marking]")


@remedy("no label of classes of", r"it has (\w+)", {"site": "monitor.probe.label=site"})
def looks_for_a_number(place: Place) -> Command:
    return pretrain("mae", "monitor.probe.every=10", "monitor.probe.label=severity")


@remedy("only stage 3 shards weights; set", r"set (zero.stage=3)")
def weights_that_stay(place: Place) -> Command:
    return pretrain("gimp", "zero.offload_params=cpu", "zero.stage=1")


@remedy("stage 0 shards no optimizer state; set", r"set (zero.stage=1)")
def an_optimizer_that_stays(place: Place) -> Command:
    return pretrain("gimp", "zero.offload_optimizer=cpu", "zero.stage=0")


@remedy("cannot be shared by", r"use (\d+) or", {"6": "global_batch=6"})
@remedy("cannot be shared by", r"use \d+ (or \d+),", {"or 8": "global_batch=8"})
def a_batch_that_ranks_cannot_share(place: Place) -> Command:
    return pretrain("gimp", "--world", "2", "global_batch=7")


@remedy("does not divide global_batch", r"use one of \[(1),", {"1": "micro_batch=1"})
def a_part_that_does_not_divide(place: Place) -> Command:
    return pretrain("mrm_record", "global_batch=16", "micro_batch=5")


@remedy("accumulated parts would be another loss than", r"Use (micro_batch=\d+) \(with")
@remedy("accumulated parts would be another loss than", r"Use (micro_batch=\d+ \(with [a-z_]+=true)", {"(with ": ""})
def parts_of_a_batch_that_is_compared(place: Place) -> Command:
    return pretrain("gimp", "global_batch=16", "micro_batch=4")


@remedy("or data.val_split= for none", r"or (data.val_split=) for")
@remedy("enlarge it (python -m shards split)", r"\((python -m shards split)\)", {"split": "split {folder}/d"})
def too_few_to_validate_on(place: Place) -> Command:
    data = shutil.copytree(place.demo, place.folder / "d")
    split = Command("shards", ["split", str(data), "--fractions", "0.99,0.005,0.005"])
    assert run(split)[0] == 0
    return pretrain("gimp", f"data.path={data}", "--world", "8")


@remedy(
    "is split by patient (python -m shards split)", r"\((python -m shards split)\)", {"split": "split {folder}/set"}
)
def patients_in_two_splits(place: Place) -> Command:
    names = [f"p{i}.png" for i in range(packing.ROWS)]
    pixels = packing.RNG(0).integers(0, 255, (packing.ROWS, 32, 32, 3), "uint8")
    for name, one in zip(names, pixels, strict=True):
        packing.Image.fromarray(one).save(place.folder / name)
    for split, chosen in {"train": names[:8], "val": names[8:10], "test": names[10:]}.items():
        (place.folder / f"{split}.txt").write_text("\n".join(chosen) + "\n")
    lists = [w for s in ("train", "val", "test") for w in ("--split-list", f"{s}={place.folder / s}.txt")]
    reports = [f"The heart is of size {i}." for i in range(packing.ROWS)]
    command = packing.pack(place, *lists, "--accept-leaking-lists", patients=5, field_image=names, text_letter=reports)
    status, said = run(command)
    assert status == 0, said
    genes = ["method.genetics=[]", "method.match=self", "global_batch=2"]
    return pretrain("mrm_relation", f"data.path={place.folder / 'set'}", *genes)


def packed_with(place: Place, **columns: Sequence[object]) -> None:
    pixels = packing.RNG(0).integers(0, 255, (32, 32, 3), "uint8")
    split = ("--split-fractions", "0.6,0.2,0.2")
    status, said = run(packing.pack(place, "--overwrite", *split, field_image=packing.images(place, pixels), **columns))
    assert status == 0, said


def packed_with_genes(place: Place) -> None:
    packed_with(
        place, field_rna=packing.vectors(place, packing.RNG(0).normal(size=(packing.ROWS, 8)).astype("float32"))
    )


@remedy("set method.genetics=", r"set (method.genetics=rna)")
def genetics_that_are_not_there(place: Place) -> Command:
    packed_with_genes(place)
    return pretrain("mrm_relation", f"data.path={place.folder / 'set'}", "global_batch=2")


@remedy("from a manifest with a column", r"from a (manifest with a column field:rna), or", mend=packed_with_genes)
def a_field_that_is_not_there(place: Place) -> Command:
    packed_with(place)
    return pretrain("mgi", f"data.path={place.folder / 'set'}", "global_batch=2")


@remedy(
    "or take a method that reads what is there",
    r"take a (method that reads what is there) \(",
    {"method that reads what is there": "--method mae"},
    instead=["--method"],
)
def a_method_that_reads_something_else(place: Place) -> Command:
    return a_field_that_is_not_there(place)


@remedy("overrides are written section.key=value", r"for example (optim.lr=3e-4)", instead=["lr"])
def no_override(place: Place) -> Command:
    return pretrain("gimp", "lr")


@remedy(
    "is a section with keys of its own",
    r"write (stages.KEY=value)",
    {"KEY=value": "pretrain.epochs=1"},
    instead=["stages=3"],
)
def a_section_as_a_value(place: Place) -> Command:
    return pretrain("gimp", "stages=3")


@remedy("is a recipe for --method", r"is a recipe (for --method mgi)", {"for ": ""})
def a_recipe_of_another_method(place: Place) -> Command:
    (place.folder / "own.yaml").write_text("method_name: mgi\n" + (RECIPES / "mgi" / "demo.yaml").read_text())
    return pretrain("gimp", recipe=str(place.folder / "own.yaml"))


@remedy("is a recipe of mgi, not of gimp", r"give (--method mgi)")
def the_name_of_a_recipe_of_another_method(place: Place) -> Command:
    return pretrain("gimp", recipe="mgi-demo")


@remedy("this machine has no device for it", r"use (bf16)", {"bf16": "precision=bf16 zero.stage=1"}, status=0)
@remedy("this machine has no device for it", r"or (fp32)", {"fp32": "precision=fp32"}, status=0)
def fp16_without_a_device(place: Place) -> Command:
    return pretrain("gimp", "precision=fp16", "zero.stage=1")


@remedy("nothing would be trained; give", r"give (stages.pretrain.epochs)", {"epochs": "epochs=1"})
@remedy("of at least 1", r"\((epochs=N),", {"N": "1"})
@remedy("of at least 1", r", (steps=N)\)", {"N": "1"})
def no_step_at_all(place: Place) -> Command:
    return pretrain("gimp", "stages.gene.epochs=0", "stages.pretrain.epochs=0")


# -------------------------------------------------------------------------------------------------------- options of methods


@remedy("deviations of values as stored mean nothing", r"set (method.genes.normalise=stats)")
def a_clip_without_deviations(place: Place) -> Command:
    return pretrain("mgi", "method.genes.clip=3", "method.genes.normalise=none")


@remedy("says of no bag beyond method.landmarks", r"set (method.exact_tokens=2048), say")
def a_crossover_that_nobody_stated(place: Place) -> Command:
    return pretrain("gimp", "method.attention=auto")


@remedy("plays no part in method.attention=", r"set (method.attention=auto)")
def a_crossover_without_auto(place: Place) -> Command:
    return pretrain("gimp", "method.exact_tokens=512")


@remedy("an image alone has no cross relations", r"use (self)", {"self": "method.match=self"})
def relations_without_genes(place: Place) -> Command:
    return pretrain("mrm_relation", "method.genetics=[]", "method.match=cross")


@remedy("has none; use method.cascade=per_block", r"use (method.cascade=per_block)")
def a_cascade_without_relations(place: Place) -> Command:
    return pretrain("mrm_relation", "method.relations=self", "method.cascade=self_then_cross", "method.match=self")


@remedy(
    "needs two blocks in method.cross_attn_blocks",
    r"in (method.cross_attn_blocks; give \[0, 1\])",
    {"; give ": "=", ", 1": ",1"},
)
def a_cascade_of_one_block(place: Place) -> Command:
    words = ["method.cascade=self_then_cross", "method.cross_attn_blocks=[0]", "method.genes.depth=2"]
    return pretrain("mrm_relation", *words)


@remedy("and method.image.init_file=FILE go together", r"(method.image.init=file) and", {"file": "scratch"})
def mgi_without_its_file(place: Place) -> Command:
    return pretrain("mgi", "method.image.init=file")


@remedy("drop one or the other", r"(method.conventions=published)", {"published": "recommended"})
def conventions_that_are_contradicted(place: Place) -> Command:
    return pretrain("mrm_record", "method.conventions=published", "method.tie=true")


# ------------------------------------------------------------------------------------------------------------ vocabularies


def reports(place: Place) -> str:
    pictures = packing.images(place, packing.RNG(0).integers(0, 255, (32, 32, 3), "uint8"))
    status, said = run(packing.pack(place, field_image=pictures))
    assert status == 0, said
    return f"data.path={place.folder / 'set'}"


@remedy("needs the BERT", r"without one, (method.text_vectors=learned)")
def vectors_of_no_bert(place: Place) -> Command:
    return pretrain("medklip", "method.text_vectors=bert")


@remedy("goes with a BERT's vocab.txt", r"give that, or (drop it)", {"drop it": ""}, instead=["method.cased=true"])
def capitals_of_a_vocabulary_without(place: Place) -> Command:
    return pretrain("convirt", "method.cased=true")


@remedy("has no WordPiece vocabulary", r"`(python -m shards tokenizer '[^`]+ reports')`")
def reports_in_a_folder_with_a_blank(place: Place) -> Command:
    reports(place)
    (place.folder / "set").rename(place.folder / "my reports")
    return pretrain("mrm_record", f"data.path={place.folder / 'my reports'}", "global_batch=4")


@remedy("has no WordPiece vocabulary", r"`(python -m shards tokenizer [^`]+)`")
@remedy("or set method.tokenizer=FILE", r"set (method.tokenizer=FILE)", {"FILE": "{demo}/vocab/report.txt"})
def reports_without_a_vocabulary(place: Place) -> Command:
    return pretrain("mrm_record", reports(place), "global_batch=4")


@remedy(
    "is no WordPiece vocabulary of reports",
    r"`(python -m shards tokenizer DIR)`",
    {"DIR": "{folder}/set --out {folder}/words.txt"},
)
def words_that_are_no_vocabulary(place: Place) -> Command:
    (place.folder / "words.txt").write_text("heart\nlung\n")
    return pretrain("mrm_record", reports(place), f"method.tokenizer={place.folder / 'words.txt'}", "global_batch=4")


# ------------------------------------------------------------------------------------------------------------ tables of papers


@remedy("which the demo cohort does not have: give", r"give (data.path=DIR)", {"DIR": "{demo}"})
@remedy("which the demo cohort does not have: give", r"or (--recipe demo)")
def a_table_without_data(place: Place) -> Command:
    return Command("sweep", [str(TABLES / "gimp-table1.yaml"), "--dry-run", "--out", str(place.folder / "out")])


@remedy("which would be made on the demo cohort", r"give (pretrain:data.path=DIR)", {"DIR": "{demo}"})
def a_table_without_data_to_pre_train_on(place: Place) -> Command:
    columns = (f"{name}:data.path={place.demo}" for name in ("COVID-19 or other", "viral or bacterial"))
    return Command(
        "sweep", [str(TABLES / "mrm-record-table3.yaml"), *columns, "--dry-run", "--out", str(place.folder / "out")]
    )


@remedy("of the people who are tested: give", r"give (data=DIR bed=FILE covariates=FILE) ", {"DIR": "a", "FILE": "b"})
def a_table_of_studies_without_people(place: Place) -> Command:
    table = str(TABLES / "mrm-relation-table4.yaml")
    return Command("sweep", [table, "--recipe", "demo", "--dry-run", "--out", str(place.folder / "out")])


@remedy("give --people 50 or more", r"give (--people 50) or more")
def few_further_people(place: Place) -> Command:
    return Command("shards", ["demo", str(place.folder / "people"), "--people", "3"])
