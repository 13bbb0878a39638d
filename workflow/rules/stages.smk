# data → targets → (victims) → poison → condense → evaluate. Each rule passes what its job depends
# on: the files, the options and a digest of the code that it runs.


def dataset_files():
    """The data set's own files where Snakemake can watch them: Parquet, not folders of images."""
    if config["dataset"]["source"] != "parquet":
        return []
    listed = [config["dataset"][part] for part in ("train", "test")]
    return [p for part in listed for p in ([part] if isinstance(part, str) else part)]


def source_functions():
    """The functions that read the data set, as roots of a digest; only a folder has a layout."""
    chosen = (config["dataset"].get(key) for key in ("source", "layout"))
    return [f"sources.{name}" for name in chosen if name is not None]


# in the command but not in params: how often state is saved decides no bit, and re-runs nothing
MINUTES = config["checkpoint_minutes"]

# the local profile has one GPU, so that jobs which want it wait for each other
GPUS = int(config["device"] == "cuda")


def memory(work):
    """mem_mb of a rule whose job of some wildcards does that work."""
    return lambda wildcards, attempt: resources.memory_mb(config, work(wildcards), attempt)


def run_time(work):
    """Minutes of a rule whose job of some wildcards does that work."""
    return lambda wildcards, attempt: resources.minutes(config, work(wildcards), attempt)


def in_panel(stage, panel):
    """The work of a stage for a panel's instances, by wildcards."""
    return lambda wildcards: stage(config, conditions.condition_of(wildcards.case), panel)


def operations(strategy):
    """The functions that an augmentation strategy uses, as roots of a digest."""
    return [f"augment.{name}" for name in strategy or ["identity"]]


rule data:
    input:
        dataset_files(),
    output:
        train="results/{preset}/data/train.arrow",
        test="results/{preset}/data/test.arrow",
    log:
        "results/{preset}/logs/data.log",
    benchmark:
        "results/{preset}/benchmarks/data.tsv"
    resources:
        mem_mb=memory(lambda w: resources.data(config)),
        runtime=run_time(lambda w: resources.data(config)),
    params:
        options=as_argument(conditions.data_options(config)),
        code=digest("stages.data", *source_functions()),
    shell:
        "{PYTHON:q} -m rdmdc data --options {params.options:q} --code {params.code}"
        " --train {output.train:q} --test {output.test:q} 2> {log:q}"


rule target:
    input:
        test="results/{preset}/data/test.arrow",
    output:
        "results/{preset}/targets/{target}.parquet",
    log:
        "results/{preset}/logs/targets/{target}.log",
    params:
        options=lambda w: as_argument(conditions.target_options(config, int(w.target))),
        code=digest("stages.target"),
    shell:
        "{PYTHON:q} -m rdmdc target --options {params.options:q} --code {params.code}"
        " --test {input.test:q} --target {output:q} 2> {log:q}"


def victim_operations():
    return operations(config["pretrain"]["augmentation"]) if "pretrain" in config else []


rule victim:
    input:
        train="results/{preset}/data/train.arrow",
    output:
        "results/{preset}/victims/epochs={epochs}.safetensors",
    log:
        "results/{preset}/logs/victims/epochs={epochs}.log",
    benchmark:
        "results/{preset}/benchmarks/victims/epochs={epochs}.tsv"
    threads: config["threads"]
    resources:
        gpu=GPUS,
        mem_mb=memory(lambda w: resources.victim(config, int(w.epochs))),
        runtime=run_time(lambda w: resources.victim(config, int(w.epochs))),
    params:
        options=lambda w: as_argument(conditions.pretrain_options(config, int(w.epochs))),
        code=digest("stages.victim", *victim_operations()),
    shell:
        "{PYTHON:q} -m rdmdc victim --options {params.options:q} --code {params.code}"
        " --checkpoint-minutes {MINUTES}"
        " --train {input.train:q} --weights {output:q} 2> {log:q}"


def poison_code(wildcards):
    attack = config["conditions"][wildcards.condition]["attack"]
    crafting = config["attacks"].get(attack)
    used = []
    if crafting is not None and attack != "direct":
        used = [f"attacks.{crafting['optimiser']}", *operations(crafting["augmentation"])]
    return digest("stages.poison", f"attacks.{attack}", *used)


rule poison:
    input:
        train="results/{preset}/data/train.arrow",
        target="results/{preset}/targets/{target}.parquet",
        victims=victims_of,
    output:
        poisons="results/{preset}/{condition}/target={target}/poisons.parquet",
        trace="results/{preset}/{condition}/target={target}/poisons.trace.parquet",
    log:
        "results/{preset}/logs/{condition}/target={target}/poisons.log",
    benchmark:
        "results/{preset}/benchmarks/{condition}/target={target}/poisons.tsv"
    priority: 2  # the longest chains first, so that no core waits at the end
    threads: config["threads"]
    resources:
        gpu=GPUS,
        mem_mb=memory(lambda w: resources.poison(config, w.condition)),
        runtime=run_time(lambda w: resources.poison(config, w.condition)),
    params:
        options=lambda w: as_argument(conditions.poison_options(config, w.condition, int(w.target))),
        code=poison_code,
    shell:
        "{PYTHON:q} -m rdmdc poison --options {params.options:q} --code {params.code}"
        " --checkpoint-minutes {MINUTES}"
        " --train {input.train:q} --target {input.target:q} --victims {input.victims:q}"
        " --poisons {output.poisons:q} --trace {output.trace:q} 2> {log:q}"


def condense_code(wildcards, panel):
    settings = conditions.resolved(config, conditions.condition_of(wildcards.case))
    functions = {config["estimators"][name]["function"] for name in config["panels"][panel]}
    return digest(
        "stages.synthetic",
        f"condense.{settings['condense']['initialisation']}",
        *(f"estimators.{name}" for name in sorted(functions)),
        *operations(config["augmentation"]),
    )


# One rule a panel: all its estimators condense a case in lockstep, in one job.
for panel, instances in config["panels"].items():
    if not conditions.conditions_of_panel(config, panel):
        continue

    rule:
        name:
            f"condense_{panel}"
        input:
            train="results/{preset}/data/train.arrow",
            poisons=poisons_of,
        output:
            expand(
                "results/{{preset}}/{{case}}/run={{run}}/{instance}{part}.parquet",
                instance=instances,
                part=["", ".trace"],
            ),
        log:
            f"results/{{preset}}/logs/{{case}}/run={{run}}/{panel}.condense.log",
        benchmark:
            f"results/{{preset}}/benchmarks/{{case}}/run={{run}}/{panel}.condense.tsv"
        wildcard_constraints:
            case=case_pattern(panel),
        priority: 1
        threads: config["threads"]
        resources:
            gpu=GPUS,
            mem_mb=memory(in_panel(resources.condense, panel)),
            runtime=run_time(in_panel(resources.condense, panel)),
        params:
            folder="results/{preset}/{case}/run={run}",
            options=lambda w, panel=panel: as_argument(
                conditions.synthetic_options(config, w.case, int(w.run), panel)
            ),
            code=lambda w, panel=panel: condense_code(w, panel),
        shell:
            "{PYTHON:q} -m rdmdc synthetic --options {params.options:q} --code {params.code}"
            " --checkpoint-minutes {MINUTES}"
            " --train {input.train:q} --poisons {input.poisons:q} --folder {params.folder:q}"
            " 2> {log:q}"

    rule:
        name:
            f"evaluate_{panel}"
        input:
            test="results/{preset}/data/test.arrow",
            targets=targets_of,
            synthetic=expand(
                "results/{{preset}}/{{case}}/run={{run}}/{instance}.parquet", instance=instances
            ),
        output:
            expand(
                "results/{{preset}}/{{case}}/run={{run}}/{instance}.scores.parquet",
                instance=instances,
            ),
        log:
            f"results/{{preset}}/logs/{{case}}/run={{run}}/{panel}.evaluate.log",
        benchmark:
            f"results/{{preset}}/benchmarks/{{case}}/run={{run}}/{panel}.evaluate.tsv"
        wildcard_constraints:
            case=case_pattern(panel),
        threads: config["threads"]
        resources:
            gpu=GPUS,
            mem_mb=memory(in_panel(resources.evaluate, panel)),
            runtime=run_time(in_panel(resources.evaluate, panel)),
        params:
            folder="results/{preset}/{case}/run={run}",
            options=lambda w, panel=panel: as_argument(
                conditions.scores_options(config, w.case, int(w.run), panel)
            ),
            code=digest("stages.scores", *operations(config["evaluate"]["augmentation"])),
        shell:
            "{PYTHON:q} -m rdmdc scores --options {params.options:q} --code {params.code}"
            " --checkpoint-minutes {MINUTES}"
            " --test {input.test:q} --targets {input.targets:q} --folder {params.folder:q}"
            " 2> {log:q}"
