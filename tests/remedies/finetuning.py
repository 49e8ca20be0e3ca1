"""Remedies of `finetune`: keys of a task, labels, masks and leaks, by --dry-run."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from tests.remedies.scenario import Command, Place, remedy
from tests.trainer.downstream.planted import other_scanner, planted


def finetune(*words: str, task: str = "demo_subtype", method: str = "mgi", init: str = "scratch") -> Command:
    recipe = ["--recipe", "demo"] if init == "scratch" else []
    return Command(
        "finetune", ["--task", task, "--method", method, "--init", init, *recipe, "--dry-run", "out=run", *words]
    )


def own(place: Place, **content: object) -> str:
    (place.folder / "own.yaml").write_text(yaml.safe_dump(content))
    return str(place.folder / "own.yaml")


@remedy("the package's form, of which there is no exact one", r"set (method.nystrom=exact_short)")
def an_exact_form_of_a_package_that_has_none(place: Place) -> Command:
    words = ("method.conventions=published", "method.attention=auto", "method.exact_tokens=512")
    return finetune(*words, method="transmil")


# --------------------------------------------------------------------------------------------------------- keys of a task


@remedy("has no numbers to standardise; leave it out", r"(standardise=each_split)", {"each_split": "train"})
def numbers_of_classes(place: Place) -> Command:
    return finetune("standardise=each_split")


@remedy(
    "has no classes, use protocol.fraction",
    r"use (protocol.fraction)",
    {"fraction": "fraction=0.5 protocol.shots=null"},
)
def shots_of_numbers(place: Place) -> Command:
    return finetune("protocol.shots=5", task="demo_severity")


@remedy("give one of them, not both", r"(protocol.fraction), protocol.shots", {"fraction": "fraction=1"})
@remedy("give one of them, not both", r"protocol.fraction, (protocol.shots):", {"shots": "shots=null"})
def shots_and_a_share(place: Place) -> Command:
    return finetune("protocol.shots=2", "protocol.fraction=0.5")


@remedy("learns from one data set, these are", r"another with (data.path=\S+ tests.NAME=\S+),", {"NAME": "other"})
def two_hospitals(place: Place) -> Command:
    other = planted(place.folder / "other", members=other_scanner, rename=lambda name: f"other-{name}")
    return finetune(f"data.path=[{place.demo},{other}]")


@remedy("of which label is it a value", r"Give (site=LABEL) too", {"LABEL": "site"})
def a_site_of_no_label(place: Place) -> Command:
    return finetune("hold_out=site0")


@remedy("not which system is better", r"choose by (metric=auc)")
def a_metric_that_ranks_nothing(place: Place) -> Command:
    return finetune("metric=calibration_slope", "metrics=[auc,calibration_slope]")


@remedy(
    "0 has no optimum where a plane parts the classes", r", (protocol.weight_decays): 0", {"decays": "decays=[0.1]"}
)
def a_decay_of_nothing(place: Place) -> Command:
    return finetune("--mode", "linear", "protocol.solver=converged", "protocol.weight_decays=[0,0.1]")


@remedy("and one has no other", r"use (protocol.batch=2) or more", instead=["protocol.batch=1"])
@remedy("and one has no other", r"or (output.survival=intervals)")
def a_batch_of_one(place: Place) -> Command:
    return finetune("protocol.batch=1", task="demo_survival")


@remedy("has intervals; set it, or leave them out", r"only (output.survival=intervals)")
def intervals_of_a_hazard(place: Place) -> Command:
    return finetune("output.intervals=3", task="demo_survival")


@remedy("give fewer intervals, or output.survival=cox", r"or (output.survival=cox)", instead=["output.intervals=200"])
@remedy(
    "give fewer intervals, or output.survival=cox", r"give (fewer intervals)", {"fewer intervals": "output.intervals=2"}
)
def more_intervals_than_events(place: Place) -> Command:
    return finetune("output.survival=intervals", "output.intervals=200", task="demo_survival")


@remedy(
    "does not weigh classes; use protocol.balance",
    r"use (protocol.balance)",
    {"balance": "balance=true protocol.weight_classes=false"},
)
def weighed_classes(place: Place) -> Command:
    return finetune("protocol.weight_classes=true")


@remedy("would never train it; leave it out", r": (protocol.freeze=encoder)", {"encoder": "none"})
@remedy("would never train it; leave it out", r"(leave it out)", {"leave it out": ""}, instead=["vit.layer_scale=1.0"])
def parts_that_stay_untrained(place: Place) -> Command:
    return finetune("protocol.freeze=encoder", "vit.layer_scale=1.0")


@remedy("protocol.freeze=encoder would never train them", r": (protocol.freeze=encoder)", {"encoder": "none"})
def parts_of_an_encoder_that_stays_untrained(place: Place) -> Command:
    return finetune("protocol.freeze=encoder", "encoder.layer_scale=1.0")


@remedy(
    "not on pixels; use finetune with protocol.freeze=encoder",
    r"use (finetune with \S+)",
    {"finetune with": "--mode finetune"},
)
def a_probe_of_pixels(place: Place) -> Command:
    return finetune("--mode", "linear", task="demo_lesions")


@remedy("form; use linear", r"use (linear)", {"linear": "--mode finetune"})
def neighbours_of_survival(place: Place) -> Command:
    return finetune("--mode", "knn", task="demo_survival")


@remedy("with zero.stage=0: DeepSpeed starts Adam's counter off", r"set (zero.stage=1)")
def bf16_under_stage_0_of_a_task(place: Place) -> Command:
    return finetune("precision=bf16", "zero.stage=0")


@remedy("this machine has no device for it", r"use (bf16)", {"bf16": "precision=bf16 zero.stage=1"}, status=0)
def fp16_of_a_task_without_a_device(place: Place) -> Command:
    return finetune("precision=fp16", "zero.stage=1")


@remedy("there are no genes to shuffle or to miss", r"set (inputs: multimodal)", {": ": "="})
def controls_without_genes(place: Place) -> Command:
    return finetune("controls=[shuffled]")


@remedy("has no third answer; use ignore", r"use (ignore),", {"ignore": "uncertain=ignore"})
@remedy("has no third answer; use ignore", r"ignore, (ones) or", {"ones": "uncertain=ones"})
@remedy("has no third answer; use ignore", r"or (zeros),", {"zeros": "uncertain=zeros"})
@remedy("has no third answer; use ignore", r"or (mode finetune)", {"mode": "--mode"})
def a_third_answer(place: Place) -> Command:
    return finetune("--mode", "linear", "uncertain=class", task="demo_findings")


@remedy("needs words for the classes", r"set (prompts=FILE.yaml)", {"FILE.yaml": "demo_findings"})
@remedy("needs words for the classes", r"or (prompts=NAME) of", {"NAME": "demo_findings"})
def classes_without_words(place: Place) -> Command:
    return finetune("--mode", "zeroshot", task="demo_findings", method="convirt")


@remedy("compares images with texts, and", r"or use (--mode linear)")
def words_for_a_system_without_texts(place: Place) -> Command:
    return finetune("--mode", "zeroshot", "prompts=demo_subtype", method="simclr")


@remedy("mode zeroshot learns from no label", r"(leave them out)", {"leave them out": "protocol.fraction=1"})
def shares_of_no_labels(place: Place) -> Command:
    return finetune("--mode", "zeroshot", "prompts=demo_subtype", "protocol.fraction=0.5", method="convirt")


@remedy("has no retrieval form", r"use (--mode zeroshot)")
def probes_of_reports(place: Place) -> Command:
    return finetune("--mode", "linear", task="report_retrieval", method="convirt")


@remedy("zeroshot has no", r"use (--mode linear) or")
@remedy("zeroshot has no", r"or (--mode finetune)")
def words_for_numbers(place: Place) -> Command:
    return finetune("--mode", "zeroshot", task="demo_severity")


@remedy("with one mask field that is so anyway", r"(mask_missing=leave_out)", {"leave_out": "refuse"})
def one_mask_field(place: Place) -> Command:
    return finetune("mask_missing=leave_out", task="demo_lesions")


@remedy("nothing thaws; set protocol.freeze_epochs too", r"set (protocol.freeze_epochs)", {"epochs": "epochs=2"})
def nothing_thaws(place: Place) -> Command:
    return finetune("protocol.thaw_lr=0.1")


@remedy("the encoder would stay frozen; give one of them", r", (protocol.freeze=encoder):", {"encoder": "none"})
def frozen_for_ever(place: Place) -> Command:
    return finetune("protocol.freeze_epochs=2", "protocol.freeze=encoder")


@remedy(
    "nothing is left to train the encoder in; ",
    r"or (protocol.freeze=encoder)",
    {"encoder": "encoder protocol.freeze_epochs=0"},
)
def frozen_to_the_end(place: Place) -> Command:
    return finetune("protocol.freeze_epochs=10", "protocol.epochs=10")


@remedy(
    "so nothing is left to train the encoder in",
    r"or (protocol.freeze=encoder)",
    {"encoder": "encoder protocol.freeze_epochs=0"},
)
def frozen_for_all_steps(place: Place) -> Command:
    return finetune("protocol.freeze_epochs=10", "protocol.steps=5", "protocol.epochs=null")


@remedy("only the upernet and setr_pup decoders", r"(set it to 0)", {"set it to 0": "output.auxiliary=0"})
def a_decoder_without_an_auxiliary(place: Place) -> Command:
    return finetune("output.auxiliary=0.4")


@remedy("only the two-way decoder of a segmentation", r"set (output.decoder=two_way)")
@remedy("only the two-way decoder of a segmentation", r"leave (it) out", {"it": "output.queries=16"})
def queries_of_another_decoder(place: Place) -> Command:
    return finetune("output.queries=4", task="demo_lesions")


@remedy("has a decoder of its own for masks", r"set (output.decoder=auto)")
def another_decoder_than_its_own(place: Place) -> Command:
    return finetune("output.decoder=upernet", task="demo_lesions", method="unet")


@remedy("is its own and has none", r"set (output.auxiliary=0)")
def an_auxiliary_of_its_own_decoder(place: Place) -> Command:
    return finetune("output.auxiliary=0.4", task="demo_lesions", method="unet")


@remedy("encodes image alone: inputs: multimodal needs", r"use (inputs=image)")
def one_modality(place: Place) -> Command:
    return finetune("inputs=multimodal", method="mrm_record")


@remedy("has no gene side; use none or encoder", r"use (none)", {"none": "protocol.freeze=none"})
@remedy("has no gene side; use none or encoder", r"or (encoder)", {"encoder": "protocol.freeze=encoder"})
def genes_to_freeze(place: Place) -> Command:
    return finetune("protocol.freeze=genes", method="mrm_record")


@remedy("weighs no patches; leave it out", r"(output.attention):", {"attention": "attention=0"})
def maps_of_a_probe(place: Place) -> Command:
    return finetune("--mode", "knn", "output.attention=2")


@remedy("that head weighs tokens, which are patches in some systems alone", r"use (output.head=auto)")
def maps_of_a_head_of_tokens(place: Place) -> Command:
    return finetune("output.attention=2", "output.head=bag", method="abmil")


@remedy("nothing weighs the patches of a slide in", r"use (output.head=auto)")
def maps_without_the_head_that_weighs(place: Place) -> Command:
    return finetune("output.attention=2", "output.head=linear", method="clam")


@remedy("maps are of the patches of a slide", r"(output.attention):", {"attention": "attention=0"})
def maps_of_what_is_no_slide(place: Place) -> Command:
    return finetune("output.attention=2")


@remedy("has no trained answer of a whole case; leave it out", r"(output.gradients):", {"gradients": "gradients=0"})
def gradients_of_a_probe(place: Place) -> Command:
    return finetune("--mode", "knn", "output.gradients=2")


@remedy("has a head of its own, which takes none of them", r"give (output.head=linear),")
@remedy("has a head of its own, which takes none of them", r"linear, (mlp)", {"mlp": "output.head=mlp"})
def a_head_of_its_own(place: Place) -> Command:
    return finetune("output.dropout=0.1", method="gimp")


@remedy("another loss than one batch of", r"use (protocol.micro_batch=8)")
def parts_of_a_batch_that_is_ranked(place: Place) -> Command:
    return finetune("protocol.micro_batch=4", "protocol.batch=8", task="demo_survival")


@remedy("are no power of two; use upernet", r"use (upernet)", {"upernet": "output.decoder=upernet"})
def a_decoder_that_doubles(place: Place) -> Command:
    return finetune("output.decoder=setr_pup", task="demo_lesions")


@remedy("are no power of two; use upernet", r"patches of (8) or", {"8": "method.image.patch=8"})
def a_decoder_that_doubles_small_patches(place: Place) -> Command:
    return finetune("output.decoder=setr_pup", task="demo_lesions")


# ----------------------------------------------------------------------------------------------------------------- --init


@remedy(
    "has no image encoder that a file of weights could start",
    r"or (scratch)",
    {"scratch": "--init scratch --recipe demo"},
)
def a_file_for_a_bag(place: Place) -> Command:
    (place.folder / "w.safetensors").write_bytes(b"")
    return finetune(method="gimp", init=str(place.folder / "w.safetensors"))


@remedy("mend the names, or set method.unknown_genes=leave_out", r"set (method.unknown_genes=leave_out)")
def sets_of_unknown_genes(place: Place) -> Command:
    genes = (place.demo / "vocab" / "rna.txt").read_text().split()
    sets = "".join(f"SET{i}\tmade up\t{genes[2 * i]}\t{genes[2 * i + 1]}\tNOGENE{i}\n" for i in range(4))
    (place.folder / "sets.gmt").write_text(sets)
    return finetune(f"method.gene_sets={place.folder / 'sets.gmt'}", method="mcat")


@remedy("give one, a run's folder, or scratch", r"or (scratch)", {"scratch": "--init scratch --recipe demo"})
def a_file_of_another_kind(place: Place) -> Command:
    (place.folder / "w.txt").write_text("")
    return finetune(init=str(place.folder / "w.txt"))


# ----------------------------------------------------------------------------------------------------------- labels, masks


@remedy("or take more labels", r"\((python -m shards split DIR --stratify \w+)\)", {"DIR": "{folder}/d"})
def a_split_of_one_class(place: Place) -> Command:
    from tests.trainer.downstream.planted import planted

    def labels(i: int, split: str, given: dict) -> dict:
        return {**given, "subtype": "alpha" if split == "val" else given["subtype"]}

    return finetune(f"data.path={planted(place.folder / 'd', labels)}")


@remedy("say in task own which are the object", r"for example (mask_values=\[\d+\])")
@remedy(
    "say in task own which are the object",
    r"or (\{.*\}) for",
    {"{structure: [values]}": "'mask_values={{a: [1], b: [2]}}'"},
)
def masks_of_two_values(place: Place) -> Command:
    from tests.trainer.downstream.planted import pixels, planted, png

    def two(i: int, given: dict) -> dict:
        mask = pixels(given["mask", "png"]).copy()
        mask[mask > 0] = 1
        mask[0, :2] = 2
        return {**given, ("mask", "png"): png(mask)}

    data = planted(place.folder / "d", members=two)
    return finetune(f"data.path={data}", task=own(place, kind="segmentation", mask="mask", protocol={"epochs": 1}))


@remedy("(nothing of it in the image) or", r": (mask_missing=empty) \(")
@remedy("(nothing of it in the image) or", r"or (mask_missing=leave_out)")
def some_of_several_masks(place: Place) -> Command:
    from tests.trainer.downstream.planted import planted

    def two(i: int, given: dict) -> dict:
        return {**given, **({("mask_b", "png"): given["mask", "png"]} if i % 5 else {})}

    task = own(place, kind="segmentation", mask=["mask", "mask_b"], protocol={"epochs": 1})
    return finetune(f"data.path={planted(place.folder / 'd', members=two)}", task=task)


# ---------------------------------------------------------------------------------------------------------------- leaks


@remedy("or accept it with leak.accept=true", r"with (leak.accept=true)")
@remedy(
    "split the data set by patient (python -m shards split)",
    r"\((python -m shards split)\)",
    {"split": "split {folder}/d"},
)
def patients_in_training_and_test(place: Place) -> Command:
    from shards.format.info import load_info, save_info, sha256_of

    data = Path(shutil.copytree(place.demo, place.folder / "d"))
    lines, seen = (data / "splits.csv").read_text().splitlines(), set[str]()
    for i, line in enumerate(lines):  # the first sample of ten training patients
        if line.endswith(",train") and (who := line.split(",")[1]) not in seen and len(seen) < 10:
            seen.add(who)
            lines[i] = line.replace(",train", ",test")
    (data / "splits.csv").write_text("\n".join(lines) + "\n")
    info = load_info(data)
    files = {**info.files, "splits.csv": sha256_of(data / "splits.csv")}
    save_info(data, info.model_copy(update={"files": files, "leaking_splits": True}))
    return finetune(f"data.path={data}")
