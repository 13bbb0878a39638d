# The paper as a graph: data → target → (victim) → poison → screen → condense → evaluate → tables.
# A preset is a complete file: config.yaml unless --configfile names another.

from snakemake.utils import min_version

min_version("9.9")

if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/stages.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        all_tables(),
        all_tables("md"),
        all_figures(),
        all_sets() if not config["tables"] else [],
