"""What no scenario types, each with its reason; and parts of messages, with the scenario that types the whole.

A fragment stands for the messages that hold it; \\x00 is a value that is put in. A fragment that fits nothing is refused.
"""

from __future__ import annotations

PARTS = {  # a part of a message -> the scenario that types it
    "rename these alone, such as": "photographs_whose_endings_are_capitals",
    "--size \x00 or more": "too_few_tokens",
    "python -m shards meaning DIR \x00.bits=12": "previewing_films_of_unknown_bits",
    "give \x00: --meaning \x00.\x00=VALUE": "bits_that_are_none",
    "--dtype \x00=float32": "too_large_for_its_dtype",
    "such as \x00 patches.encoder=conch_v15": "no_meaning",
    " and `python -m shards split`": "splits_in_another_encoding",
    ", or output.survival=intervals": "a_batch_of_one",
}

NO_REMEDY = "says what is wrong, what was done or where it stands: nothing to type"
SLURM = "needs a Slurm: tests/cluster and tests/trainer/cluster"
RUN = "needs a run that trained: tests/launch, tests/trainer and tests/trainer/downstream go on with it"
EXPORT = "needs a trained run: tests/trainer/test_export.py gives the same words"
TERMS = "needs a finished run: tests/trainer/test_export_terms.py types what the message gives"
OUTSIDE = "words of another program, which is not ours to run here"
FAR = "needs a store, a full disk or a damaged copy: test_cache.py, test_no_room.py, test_seals.py, layout/test_conversion_no_room.py"
AGAIN = "speaks of packing again, from sources that a data set does not hold"
LOOK = "names a command that looks, and mends nothing"

CODES = "needs a code book: tests/launch/test_tokenizer.py makes one, tests/models/test_mc_beit_equations.py begins with one"

WORDS = "needs a finished run: tests/launch/test_words.py finds words by one, tests/models/test_transvw_equations.py begins with them"

BERT = "needs a BERT's file: tests/models/test_medklip_equations.py makes one"

PREDICT = "needs a fine-tuned run: tests/trainer/downstream/test_external.py and test_aligned.py give the same words"

MANY_FILMS = "needs 20,000 films: tests/shards/test_near.py looks with that key at few"

BESIDE = "needs a command beside it: tests/shards/layout/test_begun.py gives the same words"

LISTED = "needs a folder of runs: tests/trainer/runs/test_runs.py gives the same words"

BASELINE = "of a baseline's options: tests/trainer/downstream/test_baselines.py gives the same words"

REPORTS = "needs a run of reports alone: tests/trainer/downstream/test_reports_alone.py begins other systems with it"

EXEMPT = {
    "give its weights as method.text.init_file": REPORTS,
    "method.columns=[age, sex]": BASELINE,
    "has no weights to train; give --mode linear": BASELINE,
    "give --task NAME: ": LISTED,
    "or give another --work": BESIDE,
    "whether a difference is more than chance": NO_REMEDY,
    "exact attention is as fast up to": NO_REMEDY,
    "give the folder that runs were written below (out=FOLDER": LISTED,
    "give folders that hold runs (out=FOLDER)": LISTED,
    "leak.near=true looks all the same": MANY_FILMS,
    "medpair words RUN DATA --out FILE": WORDS,
    "give method.text_pooler=new": BERT,
    " (of later runs: python -m shards terms DIR)": TERMS,
    "are unknown to this vocabulary; give that of an English BERT": BERT,
    "(positions, entities); make it by `python -m shards triplets DIR`": AGAIN,
    "with --impute mean": PREDICT,
    "data.path: no data set is given": PREDICT,
    "or leave --evaluate out": PREDICT,
    "give --name with letters": PREDICT,
    "(launch/finetune.py --init RUN)": PREDICT,
    "(one with protocol.freeze=encoder trains the head alone)": PREDICT,
    "keeps no weights to look at other data with": PREDICT,
    "fewer than --words": WORDS,
    "medpair tokenizer DATA --out FILE": CODES,
    "needs a code book of your images": CODES,
    "make one with --cell": CODES,
    "have a time of 0 or less": "needs times of 0: tests/trainer/downstream/test_failure_time.py",
    "leave --expression out": "needs tables of both: tests/shards/layout/test_cohorts.py",
    "leave --survival out": "needs a table of labels with survival's names: tests/shards/test_glioma.py",
    "with fewer processes if the memory is short: --jobs 1": "needs a killed process: tests/shards/test_pack_jobs.py",
    "that larger images were given when packed (--image-side, --image-format)": NO_REMEDY,
    "medpair COMMAND --help": NO_REMEDY,
    "logs --follow": NO_REMEDY,
    "(mask_missing=empty)": NO_REMEDY,
    "STANDARDISED ON EACH SPLIT": NO_REMEDY,
    "is called --recipe": NO_REMEDY,
    "trained in part by other versions": NO_REMEDY,
    "but by code": NO_REMEDY,
    "x the median step": NO_REMEDY,
    "the larger of health.hang_floor": NO_REMEDY,
    "--member or --skip": NO_REMEDY,
    "(--par-y drop)": NO_REMEDY,
    "the name stands twice (--duplicates": NO_REMEDY,
    "s became their": NO_REMEDY,
    "members \x00 (--skip)": NO_REMEDY,
    "--reference \x00=": NO_REMEDY,
    "no --member says what it is": NO_REMEDY,
    "--impute \x00=\x00": NO_REMEDY,
    "--vocab \x00=": NO_REMEDY,
    "--overwrite replaces data sets only": NO_REMEDY,
    "(--all lists every one)": NO_REMEDY,
    "  TensorBoard  tensorboard": NO_REMEDY,
    "DIR && python -m shards lint DIR": NO_REMEDY,
    "--pairing-column does not say which": NO_REMEDY,
    "neither --tiles nor --features": NO_REMEDY,
    "(--tiles-per-case)": NO_REMEDY,
    "layouts: generated by `python -m shards layouts`": NO_REMEDY,
    "pip install 'medpair[dicom]'": "installs a package: tests/shards/layout/test_dicom_films.py takes it away",
    "GDCM takes the folder": "tests/shards/layout/test_dicom_films.py calls the command in another folder",
    "(--partial)": NO_REMEDY,
    "(--views)": NO_REMEDY,
    "; --splits patient makes others": NO_REMEDY,
    "(--slices positive)": NO_REMEDY,
    "next: python -m shards tokenizer DIR": "the step after this one, which tests/shards/test_cxr_reports.py takes",
    "pre-trains before it fine-tunes": SLURM,
    "killed (SIGKILL): the system does so": "needs a run that is killed: tests/trainer/test_sweep.py types what the message gives",
    "is in another row or column": "makes a table of several tasks: tests/trainer/test_table_sweeps.py",
    "has no rows; write --recipe among": "makes another file of the sweep: tests/trainer/test_table_sweeps.py",
    "needs statistics of 'rna'": "needs a data set that has none: tests/models/test_slide_systems.py",
    "did you mean '\x00'?": "of a source's name, which the command line offers as choices before",
    "known: \x00": "of a source's name, which the command line offers as choices before",
    "data.path=DIR out=runs/mine": NO_REMEDY,
    "Slurm is not here": SLURM,
    "(--cpus-per-process)": SLURM,
    "launch/slurm.py": SLURM,
    "--gpus-per-node 0": SLURM,
    "resume.accept_code=true": RUN,
    "resume.accept_config=true": RUN,
    "resume.accept_data=true": RUN,
    "was saved under zero.stage": RUN,
    "set zero.stage=0 from the start": RUN,
    "leave --recipe out": RUN,
    "give --method": RUN,
    "use --init scratch with method.image.init": RUN,
    "protocol.freeze=encoder would never train it": "a protocol's file says it: tests/trainer/downstream/test_by_encoder.py",
    "or take protocol.solver=epochs": RUN,
    "(--components)": RUN,
    "--leave-out": RUN,
    "--relatives drop": RUN,
    "--id-column": RUN,
    "relatives were not looked for": NO_REMEDY,
    "had a non-finite loss": RUN,
    "and the run has gone back": "told of a training; a higher number of rollbacks is tried in tests/trainer/test_rollback.py",
    "There is no complete checkpoint before step": RUN,
    "checkpoint.write=wait copies nothing": "needs a machine without memory: tests/trainer/test_crash.py saves with it",
    "set log.tensorboard=false": RUN,
    "--retries": RUN,
    "give another --out": RUN,
    "folders that launch/finetune.py wrote": RUN,
    "not a result of launch/finetune.py": RUN,
    "write section.key or --flag": RUN,
    "learns from a task's labels alone": "tests/trainer/downstream/test_bad_tasks.py, for every such method",
    "or give --recipe FILE": "no method of the project is without recipes",
    "method.view.channels=all3": "needs a step on colour images: tests/models/test_mgi_equations.py",
    "set method.tie=false": "needs a published checkpoint: tests/models/test_mrm_record.py",
    "## Use": NO_REMEDY,
    "None were given with --results": NO_REMEDY,
    "--to safetensors": EXPORT,
    "unzstd": OUTSIDE,
    "unzip": OUTSIDE,
    "7z x": OUTSIDE,
    "tar --": OUTSIDE,
    "(tar without --sparse)": OUTSIDE,
    "plink --": OUTSIDE,
    "`python -m shards lint`": LOOK,
    "(python -m shards lint on the original": LOOK,
    "data.cache": FAR,
    "--shard-size": FAR,
    "put GDC's files into one folder": "leaves one of two values out: tests/shards/test_expression_layouts.py",
    "nothing that was converted is kept": FAR,
    "the same command goes on after them": FAR,
    "the shard was changed or cut after packing": FAR,
    "pack both with": AGAIN,
    "or pack with --impute": AGAIN,
    "pack again: ": AGAIN,
    "mend --patient-pattern": "the pattern is the user's own",
    "state what packing does (--transform)": "contradicts what is typed: tests/shards/test_meaning.py",
}
