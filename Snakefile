# From images to numbers: weights → index → split → extract → fit-lstm → evaluate → report.
#
#   snakemake --cores 8                       the synthetic demo
#   snakemake --cores 8 --configfile FILE     your images; FILE holds what differs from the
#                                             defaults in pipeline/workflow/config.yaml

from snakemake.utils import min_version, validate

from pipeline.workflow.settings import Settings

min_version("9.5")


configfile: workflow.source_path("pipeline/workflow/config.yaml")


validate(config, "pipeline/workflow/config.schema.yaml")
run = Settings(config)
run.put_this_interpreter_first()


scattergather:
    extract=run.shards,


# Options reach the rules through functions: Snakemake takes braces in plain strings for wildcards.


onsuccess:
    run.print_results()


rule all:
    default_target: True
    input:
        run.results / "metrics.json",
        run.results / "report.html",


if run.is_demo:

    rule demo:
        output:
            directory(run.dataset),
        log:
            run.results / "logs/demo.log",
        benchmark:
            run.results / "benchmarks/demo.tsv"
        conda:
            "pipeline/workflow/environment.yaml"
        shell:
            "(python3 -m pipeline demo --out {output:q}) 2>&1 | tee {log:q}"


rule weights:
    input:
        run.encoder_files,
    output:
        run.weights,
    log:
        run.results / "logs/weights.log",
    benchmark:
        run.results / "benchmarks/weights.tsv"
    conda:
        "pipeline/workflow/environment.yaml"
    params:
        encoder=run.encoder,
        options=lambda wildcards: run.options("weights"),
    shell:
        "(python3 -m pipeline weights --out {output:q} --encoder {params.encoder:q}"
        " {params.options}) 2>&1 | tee {log:q}"


rule index:
    input:
        run.dataset,
    output:
        run.results / "manifest.csv",
    log:
        run.results / "logs/index.log",
    benchmark:
        run.results / "benchmarks/index.tsv"
    conda:
        "pipeline/workflow/environment.yaml"
    params:
        options=lambda wildcards: run.options("index"),
        listing=run.listing(),
    shell:
        "(python3 -m pipeline index {input:q} --out {output:q} {params.options}) 2>&1 | tee {log:q}"


rule split:
    input:
        rules.index.output,
    output:
        run.results / "splits.csv",
    log:
        run.results / "logs/split.log",
    benchmark:
        run.results / "benchmarks/split.tsv"
    conda:
        "pipeline/workflow/environment.yaml"
    params:
        options=lambda wildcards: run.options("split"),
    shell:
        "(python3 -m pipeline split {input:q} --out {output:q} {params.options}) 2>&1 | tee {log:q}"


if run.shards == 1:

    rule extract:
        input:
            manifest=rules.index.output,
            weights=rules.weights.output,
        output:
            run.results / "features.h5",
        log:
            run.results / "logs/extract.log",
        benchmark:
            run.results / "benchmarks/extract.tsv"
        conda:
            "pipeline/workflow/environment.yaml"
        threads: 64
        resources:
            gpu=1,
        params:
            options=lambda wildcards: run.options("extract"),
        shell:
            "(python3 -m pipeline extract --manifest {input.manifest:q} --weights {input.weights:q}"
            " --out {output:q} --threads {threads} {params.options}) 2>&1 | tee {log:q}"

else:

    rule extract_shard:
        input:
            manifest=rules.index.output,
            weights=rules.weights.output,
        output:
            run.results / "shards/{scatteritem}.h5",
        log:
            run.results / "logs/extract_shard/{scatteritem}.log",
        benchmark:
            run.results / "benchmarks/extract_shard/{scatteritem}.tsv"
        retries: 2
        conda:
            "pipeline/workflow/environment.yaml"
        threads: 64
        resources:
            gpu=1,
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 240 * attempt,
        params:
            options=lambda wildcards: run.options("extract"),
        shell:
            "(python3 -m pipeline extract --manifest {input.manifest:q} --weights {input.weights:q}"
            " --out {output:q} --shard {wildcards.scatteritem} --threads {threads} {params.options})"
            " 2>&1 | tee {log:q}"

    rule extract:
        input:
            gather.extract(str(run.results / "shards/{scatteritem}.h5")),
        output:
            run.results / "features.h5",
        log:
            run.results / "logs/extract.log",
        benchmark:
            run.results / "benchmarks/extract.tsv"
        conda:
            "pipeline/workflow/environment.yaml"
        params:
            failures=run.allowed_failures,
        shell:
            "(python3 -m pipeline cache merge {input:q} --out {output:q}"
            " --allow-failures {params.failures}) 2>&1 | tee {log:q}"


if run.fits_together:

    rule fit_lstm:
        input:
            cache=rules.extract.output,
            splits=rules.split.output,
        output:
            directory(run.results / "fits"),
        log:
            run.results / "logs/fit_lstm.log",
        benchmark:
            run.results / "benchmarks/fit_lstm.tsv"
        conda:
            "pipeline/workflow/environment.yaml"
        params:
            options=lambda wildcards: run.options("fit"),
        shell:
            "(python3 -m pipeline fit-lstm --cache {input.cache:q} --splits {input.splits:q}"
            " --out {output:q} {params.options}) 2>&1 | tee {log:q}"

else:

    rule fit_fold:
        input:
            cache=rules.extract.output,
            splits=rules.split.output,
        output:
            directory(run.results / "fits/fold{fold}"),
        log:
            run.results / "logs/fit_fold/{fold}.log",
        benchmark:
            run.results / "benchmarks/fit_fold/{fold}.tsv"
        wildcard_constraints:
            fold="[0-9]+",
        retries: 2
        conda:
            "pipeline/workflow/environment.yaml"
        resources:
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 60 * attempt,
        params:
            folder=run.results / "fits",
            options=lambda wildcards: run.options("fit"),
        shell:
            "(python3 -m pipeline fit-lstm --cache {input.cache:q} --splits {input.splits:q}"
            " --out {params.folder:q} --fold {wildcards.fold} {params.options}) 2>&1 | tee {log:q}"


rule evaluate:
    input:
        run.fits,
    output:
        run.results / "metrics.json",
    log:
        run.results / "logs/evaluate.log",
    benchmark:
        run.results / "benchmarks/evaluate.tsv"
    conda:
        "pipeline/workflow/environment.yaml"
    params:
        folder=run.results / "fits",
        options=lambda wildcards: run.options("evaluate"),
    shell:
        "python3 -m pipeline evaluate --fits {params.folder:q} --out {output:q} {params.options}"
        " > {log:q} 2>&1 || {{ cat {log:q} >&2; exit 1; }}"


rule report:
    input:
        manifest=rules.index.output,
        cache=rules.extract.output,
        fits=run.fits,
        metrics=rules.evaluate.output,
    output:
        report(
            run.results / "report.html",
            caption="pipeline/workflow/report/results.rst",
            category="Results",
            labels={"what": "the whole run"},
        ),
    log:
        run.results / "logs/report.log",
    benchmark:
        run.results / "benchmarks/report.tsv"
    conda:
        "pipeline/workflow/environment.yaml"
    params:
        folder=run.results,
    shell:
        "(python3 -m pipeline report {params.folder:q} --out {output:q}) 2>&1 | tee {log:q}"
