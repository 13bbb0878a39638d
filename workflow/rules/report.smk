# Scores → tables and figures, and what --report shows of them: seconds, on the machine that runs
# Snakemake.


report: "../report/report.rst"


localrules:
    all,
    report,
    target,
    table,
    targets_figure,
    poisons_figure,
    synthetic_figure,
    accuracy_asr_figure,
    matrix_figure,
    provenance,


def in_report(wildcards):
    """What the report calls a table."""
    return {"Table": config["tables"][wildcards.table]["title"]}


rule table:
    input:
        table_scores,
    output:
        csv=report(
            f"{SHOWN}/{{table}}.csv",
            caption="../report/csv.rst",
            category="Tables as CSV",
            labels=in_report,
        ),
        markdown=f"{SHOWN}/{{table}}.md",
        html=report(
            f"{SHOWN}/{{table}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels=in_report,
        ),
    log:
        f"results/{PRESET}/logs/{{table}}.log",
    wildcard_constraints:
        table=r"table[a-z0-9_]*",
    params:
        options=lambda w: as_argument(job_options.table(config, w.table)),
        code=digest(f"{STAGES}.table"),
    shell:
        "{PYTHON:q} -m rdmdc stage table --options {params.options:q} --code {params.code}"
        " --scores {input:q} --csv {output.csv:q} --markdown {output.markdown:q}"
        " --html {output.html:q} 2> {log:q}"


if SHOWN != "results":

    rule default_table:
        input:
            default_table,
        output:
            "results/{table}.csv",
        wildcard_constraints:
            table=r"table[a-z0-9_]*",


if config["figures"] is not None:

    rule targets_figure:
        input:
            test=f"results/{PRESET}/data/test.safetensors",
            targets=expand(
                "results/{preset}/targets/{target}.safetensors",
                preset=PRESET,
                target=presets.target_seeds(config),
            ),
        output:
            png=f"{SHOWN}/figures/targets.png",
            svg=report(
                f"{SHOWN}/figures/targets.svg",
                caption="../report/targets.rst",
                category="Figures",
                labels={"Figure": "Targets"},
            ),
        log:
            f"results/{PRESET}/logs/figures/targets.log",
        params:
            options=as_argument({"preset": PRESET}),
            code=digest(f"{STAGES}.targets_figure"),
        shell:
            "{PYTHON:q} -m rdmdc stage targets-figure --options {params.options:q} --code {params.code}"
            " --test {input.test:q} --targets {input.targets:q}"
            " --png {output.png:q} --svg {output.svg:q} 2> {log:q}"

    rule poisons_figure:
        input:
            train=f"results/{PRESET}/data/train.safetensors",
            target=f"results/{PRESET}/targets/{config['figures']['target']}.safetensors",
            poisons=f"results/{PRESET}/{shown_case()}/poisons.safetensors",
        output:
            png=f"{SHOWN}/figures/poisons.png",
            svg=report(
                f"{SHOWN}/figures/poisons.svg",
                caption="../report/poisons.rst",
                category="Figures",
                labels={"Figure": "Poisons"},
            ),
        log:
            f"results/{PRESET}/logs/figures/poisons.log",
        params:
            options=as_argument(
                {
                    "eps": presets.attack_of(config, config["figures"]["condition"]).values.get(
                        "eps"
                    )
                }
            ),
            code=digest(f"{STAGES}.poisons_figure"),
        shell:
            "{PYTHON:q} -m rdmdc stage poisons-figure --options {params.options:q} --code {params.code}"
            " --train {input.train:q} --target {input.target:q} --poisons {input.poisons:q}"
            " --png {output.png:q} --svg {output.svg:q} 2> {log:q}"

    rule synthetic_figure:
        input:
            expand(
                "results/{preset}/{case}/run={run}/{method}.safetensors",
                preset=PRESET,
                case=shown_case(),
                run=config["figures"]["run"],
                method=shown_methods(),
            ),
        output:
            png=f"{SHOWN}/figures/synthetic.png",
            svg=report(
                f"{SHOWN}/figures/synthetic.svg",
                caption="../report/synthetic.rst",
                category="Figures",
                labels={"Figure": "Condensed sets"},
            ),
        log:
            f"results/{PRESET}/logs/figures/synthetic.log",
        params:
            options=as_argument(
                {"labels": [config["methods"][name]["label"] for name in shown_methods()]}
            ),
            code=digest(f"{STAGES}.synthetic_figure"),
        shell:
            "{PYTHON:q} -m rdmdc stage synthetic-figure --options {params.options:q} --code {params.code}"
            " --synthetic {input:q} --png {output.png:q} --svg {output.svg:q} 2> {log:q}"

    rule accuracy_asr_figure:
        input:
            scores_of(config["figures"]["table"]),
        output:
            png=f"{SHOWN}/figures/accuracy_asr.png",
            svg=report(
                f"{SHOWN}/figures/accuracy_asr.svg",
                caption="../report/accuracy_asr.rst",
                category="Figures",
                labels={"Figure": "Accuracy against ASR"},
            ),
        log:
            f"results/{PRESET}/logs/figures/accuracy_asr.log",
        params:
            options=as_argument(job_options.table(config, config["figures"]["table"])),
            code=digest(f"{STAGES}.accuracy_asr_figure"),
        shell:
            "{PYTHON:q} -m rdmdc stage accuracy-asr-figure --options {params.options:q}"
            " --code {params.code} --scores {input:q}"
            " --png {output.png:q} --svg {output.svg:q} 2> {log:q}"


rule matrix_figure:
    input:
        table_scores,
    output:
        png=f"{SHOWN}/figures/{{table}}.matrix.png",
        svg=report(
            f"{SHOWN}/figures/{{table}}.matrix.svg",
            caption="../report/matrix.rst",
            category="Figures",
            labels={"Figure": "Attacks against methods"},
        ),
    log:
        f"results/{PRESET}/logs/figures/{{table}}.matrix.log",
    wildcard_constraints:
        table=r"table[a-z0-9_]*",
    params:
        options=lambda w: as_argument(job_options.table(config, w.table)),
        code=digest(f"{STAGES}.matrix_figure"),
    shell:
        "{PYTHON:q} -m rdmdc stage matrix-figure --options {params.options:q}"
        " --code {params.code} --scores {input:q}"
        " --png {output.png:q} --svg {output.svg:q} 2> {log:q}"


rule provenance:
    input:
        all_tables(),
        all_tables("md"),
        all_tables("html"),
        all_figures(),
    output:
        report(
            f"{SHOWN}/provenance.html",
            caption="../report/provenance.rst",
            category="Provenance",
            labels={"Of": "all that tables and figures come from"},
        ),
    log:
        f"results/{PRESET}/logs/provenance.log",
    params:
        options=as_argument({"preset": PRESET}),
        code=digest(f"{STAGES}.provenance_page"),
    shell:
        "{PYTHON:q} -m rdmdc stage provenance-page --options {params.options:q} --code {params.code}"
        " --artifacts {input:q} --html {output:q} 2> {log:q}"


rule report:
    input:
        all_tables("html"),
        all_figures(),
        rules.provenance.output,
