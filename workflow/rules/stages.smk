# data → target → (victim) → poison → screen → condense → evaluate. Each rule passes what its job
# depends on: the files, the options and a digest of the code that it runs.


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
    """The work of a stage for a panel's methods, by wildcards."""
    return lambda wildcards: stage(config, presets.condition_of(wildcards.case), panel)


def in_condition(stage):
    """The work of a stage for a condition, by wildcards."""
    return lambda wildcards: stage(config, wildcards.condition)


def code_of(stage, *chosen):
    """The digest of a stage with the plug-ins that it runs."""
    used = {one.plugin.module for one in chosen if one is not None}
    return digest(f"{STAGES}.{stage}", *sorted(used))


SOURCE = presets.source_of(config)


rule data:
    input:
        SOURCE.plugin.facts["files"](SOURCE.options),
    output:
        train="results/{preset}/data/train.safetensors",
        test="results/{preset}/data/test.safetensors",
    log:
        "results/{preset}/logs/data.log",
    benchmark:
        "results/{preset}/benchmarks/data.tsv"
    resources:
        mem_mb=memory(lambda w: resources.data(config)),
        runtime=run_time(lambda w: resources.data(config)),
    params:
        options=as_argument(job_options.data(config)),
        code=code_of("data", SOURCE),
        fingerprint=SOURCE.plugin.facts["fingerprint"](SOURCE.options),
    shell:
        "{PYTHON:q} -m rdmdc stage data --options {params.options:q} --code {params.code}"
        " --train {output.train:q} --test {output.test:q} 2> {log:q}"


rule target:
    input:
        test="results/{preset}/data/test.safetensors",
    output:
        "results/{preset}/targets/{target}.safetensors",
    log:
        "results/{preset}/logs/targets/{target}.log",
    params:
        options=target_options,
        code=code_of("target"),
    shell:
        "{PYTHON:q} -m rdmdc stage target --options {params.options:q} --code {params.code}"
        " --test {input.test:q} --target {output:q} 2> {log:q}"


rule victim:
    input:
        train="results/{preset}/data/train.safetensors",
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
        options=lambda w: as_argument(job_options.victim(config, int(w.epochs))),
        code=code_of("victim", presets.network_of(config)),
    shell:
        "{PYTHON:q} -m rdmdc stage victim --options {params.options:q} --code {params.code}"
        " --checkpoint-minutes {MINUTES}"
        " --train {input.train:q} --weights {output:q} 2> {log:q}"


rule poison:
    input:
        train="results/{preset}/data/train.safetensors",
        target="results/{preset}/targets/{target}.safetensors",
        victims=victims_of,
    output:
        poisons="results/{preset}/{condition}/target={target}/poisons.safetensors",
        trace="results/{preset}/{condition}/target={target}/poisons.trace.parquet",
    log:
        "results/{preset}/logs/{condition}/target={target}/poisons.log",
    benchmark:
        "results/{preset}/benchmarks/{condition}/target={target}/poisons.tsv"
    priority: 3  # the longest chains first, so that no core waits at the end
    threads: config["threads"]
    resources:
        gpu=GPUS,
        mem_mb=memory(in_condition(resources.poison)),
        runtime=run_time(in_condition(resources.poison)),
    params:
        options=lambda w: as_argument(job_options.poison(config, w.condition, int(w.target))),
        code=lambda w: code_of(
            "poison",
            presets.attack_of(config, w.condition),
            presets.network_of(config, w.condition),
        ),
    shell:
        "{PYTHON:q} -m rdmdc stage poison --options {params.options:q} --code {params.code}"
        " --checkpoint-minutes {MINUTES}"
        " --train {input.train:q} --target {input.target:q} --victims {input.victims:q}"
        " --poisons {output.poisons:q} --trace {output.trace:q} 2> {log:q}"


rule screen:
    input:
        train="results/{preset}/data/train.safetensors",
        poisons=poisons_of,
    output:
        "results/{preset}/{case}/screens/{screen}.parquet",
    log:
        "results/{preset}/logs/{case}/screens/{screen}.log",
    benchmark:
        "results/{preset}/benchmarks/{case}/screens/{screen}.tsv"
    wildcard_constraints:
        case=pattern_of(config["conditions"]),
    priority: 2
    threads: config["threads"]
    resources:
        gpu=GPUS,
        mem_mb=memory(lambda w: resources.screen(config, presets.condition_of(w.case), w.screen)),
        runtime=run_time(lambda w: resources.screen(config, presets.condition_of(w.case), w.screen)),
    params:
        options=lambda w: as_argument(job_options.screen(config, w.case, w.screen)),
        code=lambda w: code_of(
            "screen",
            presets.chosen(config, "screen", w.screen, "screens"),
            presets.network_of(config, presets.condition_of(w.case)),
        ),
    shell:
        "{PYTHON:q} -m rdmdc stage screen --options {params.options:q} --code {params.code}"
        " --checkpoint-minutes {MINUTES}"
        " --train {input.train:q} --poisons {input.poisons:q} --screening {output:q} 2> {log:q}"


def condense_code(wildcards, panel):
    condition, methods = presets.condition_of(wildcards.case), config["panels"][panel]
    return code_of(
        "condense",
        presets.condenser_of(config, methods[0], condition),
        presets.network_of(config, condition),
        *(presets.estimator_of(config, method) for method in methods),
    )


EVALUATORS = [
    presets.network_named(config, name, "evaluate.networks")
    for name in config["evaluate"]["networks"]
]

# Two rules a panel: all its methods condense a case in lockstep, in one job, and another evaluates.
for panel, methods in config["panels"].items():
    if not presets.conditions_of_panel(config, panel):
        continue

    rule:
        name:
            f"condense_{panel}"
        input:
            train="results/{preset}/data/train.safetensors",
            poisons=poisons_of,
            screening=screening_of(panel),
            clean=clean_sets(panel),
            clean_screening=clean_screening(panel),
        output:
            expand(
                "results/{{preset}}/{{case}}/run={{run}}/{method}{part}",
                method=methods,
                part=[".safetensors", ".trace.parquet"],
            ),
        log:
            f"results/{{preset}}/logs/{{case}}/run={{run}}/{panel}.condense.log",
        benchmark:
            f"results/{{preset}}/benchmarks/{{case}}/run={{run}}/{panel}.condense.tsv"
        wildcard_constraints:
            case=pattern_of(presets.conditions_of_panel(config, panel)),
        priority: 1
        threads: config["threads"]
        resources:
            gpu=GPUS,
            mem_mb=memory(in_panel(resources.condense, panel)),
            runtime=run_time(in_panel(resources.condense, panel)),
        params:
            folder="results/{preset}/{case}/run={run}",
            options=lambda w, panel=panel: as_argument(
                job_options.condense(config, w.case, int(w.run), panel)
            ),
            code=lambda w, panel=panel: condense_code(w, panel),
        shell:
            "{PYTHON:q} -m rdmdc stage condense --options {params.options:q} --code {params.code}"
            " --checkpoint-minutes {MINUTES}"
            " --train {input.train:q} --poisons {input.poisons:q}"
            " --screening {input.screening:q} --clean {input.clean:q}"
            " --clean-screening {input.clean_screening:q} --folder {params.folder:q} 2> {log:q}"

    rule:
        name:
            f"evaluate_{panel}"
        input:
            test="results/{preset}/data/test.safetensors",
            targets=targets_of,
            synthetic=expand(
                "results/{{preset}}/{{case}}/run={{run}}/{method}.safetensors", method=methods
            ),
        output:
            expand(
                "results/{{preset}}/{{case}}/run={{run}}/{method}.scores.parquet", method=methods
            ),
        log:
            f"results/{{preset}}/logs/{{case}}/run={{run}}/{panel}.evaluate.log",
        benchmark:
            f"results/{{preset}}/benchmarks/{{case}}/run={{run}}/{panel}.evaluate.tsv"
        wildcard_constraints:
            case=pattern_of(presets.conditions_of_panel(config, panel)),
        threads: config["threads"]
        resources:
            gpu=GPUS,
            mem_mb=memory(in_panel(resources.evaluate, panel)),
            runtime=run_time(in_panel(resources.evaluate, panel)),
        params:
            folder="results/{preset}/{case}/run={run}",
            options=lambda w, panel=panel: as_argument(
                job_options.evaluate(config, w.case, int(w.run), panel)
            ),
            code=code_of("evaluate", *EVALUATORS),
        shell:
            "{PYTHON:q} -m rdmdc stage evaluate --options {params.options:q} --code {params.code}"
            " --checkpoint-minutes {MINUTES}"
            " --test {input.test:q} --targets {input.targets:q} --folder {params.folder:q}"
            " 2> {log:q}"
