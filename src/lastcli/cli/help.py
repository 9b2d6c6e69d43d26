"""Help as people read it: the commands they need first, options by what they are for, examples, nothing cut short."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

__all__ = ["EXAMPLES", "PANELS", "Command", "FirstScreen", "Group"]

# title → options, by the names of their parameters
PANELS: dict[str, tuple[str, ...]] = {
    "What goes": (
        *("method", "methods", "refit", "refits", "match_output", "steps", "layout", "states_multiple"),
        *("compat", "allow_unstable", "refuse_unstable", "allow_inexact", "seed"),
    ),
    "How much": (
        "ratio",
        "ratios",
        "states",
        "min_states",
        "max_drop",
        "budget",
        "significance",
        "fail_over",
        "fail_under",
    ),
    "Data": (
        *(
            "data",
            "no_files",
            "limit",
            "scale",
            "mean",
            "std",
            "columns",
            "metric",
            "threshold",
            "warmup",
            "batch_size",
        ),
        *("forward", "outputs"),
        *("calibration", "calibration_limit", "layer_inputs", "length", "repeats"),
    ),
    "Model": (
        "checkpoint",
        "name",
        "like",
        "settings",
        "model_config",
        "recipe",
        "to_family",
        "keep_others",
        "suggest",
    ),
    "Devices and processes": ("devices", "distributed", "coordinator", "num_processes", "process_id"),
    "Output": (
        *("out", "dry_run", "shard_size", "card", "report", "plot", "junit", "summary", "schema", "force", "certify"),
        "resume",
        *("as_json", "as_csv", "as_markdown", "quiet", "debug"),
    ),
}

_FIRST = (
    ("last inspect model.safetensors", "what is in it, and what was assumed about it"),
    ("last sweep model.safetensors --data test.npz", "how far it can be pruned"),
    ("last prune model.safetensors --ratio 0.5 --out small.safetensors", "the smaller checkpoint"),
)

EXAMPLES: dict[str, tuple[str, ...]] = {
    "inspect": ("last inspect model.pth", "last inspect model.pth --set activation=full_glu --report model.html"),
    "score": ("last score model.pth --method aire --csv", "last score bundled --plot energies.png"),
    "prune": (
        "last prune model.pth --ratio 0.33 --out small.pth",
        "last prune model.pth --method obs --calibration train.npz --max-drop 0.01 --data valid.npz --out small.pth",
    ),
    "sweep": (
        "last sweep model.pth --data test.npz --methods last,aire,obs --report report.html",
        "last sweep model.pth --data test.npz --ratios 0.5 --fail-over 0.01 --junit gates.xml",
    ),
    "eval": ("last eval small.pth --data test.npz", "last eval small.pth --data test.npz --fail-under 0.95"),
    "verify": ("last verify model.pth small.pth", "last verify model.pth small.pth --data test.npz --json"),
    "convert": ("last convert model.msgpack model.safetensors",),
    "recipe check": ("last recipe check last.yaml", "last recipe check --no-files recipes/*.yaml"),
    "recipe show": ("last recipe show last.yaml", "last recipe show last.yaml --method obs --json"),
    "recipe init": ("last recipe init model.pth", "last recipe init model.pth --out pth.yaml --schema"),
    "recipe schema": ("last recipe schema > last.schema.json",),
    "bench": ("last bench model.pth small.pth --repeats 50",),
}


class Command(TyperCommand):
    """A command whose options stand in `PANELS`, with examples at the end."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, the panels, and whatever has none."""
        arguments: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        panels: dict[str, list[tuple[str, str]]] = {title: [] for title in PANELS}
        titles = {name: title for title, names in PANELS.items() for name in names}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                panels.get(titles.get(str(parameter.name), ""), others).append(record)
        for title, rows in (("Arguments", arguments), *panels.items(), ("Help", others)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, a line each."""
        examples = EXAMPLES.get(ctx.command_path.partition(" ")[2], ())
        if examples:
            formatter.write_paragraph()
            formatter.write("Examples:\n" + "".join(f"  {example}\n" for example in examples))


class Group(TyperGroup):
    """Several commands, with whole sentences."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Every command with its whole description."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, " ".join((command.help or "").split("\n\n")[0].split())))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class FirstScreen(Group):
    """Three commands to begin with, then all of them."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """What it is, and the three commands that most people need."""
        super().format_help_text(ctx, formatter)
        formatter.write_paragraph()
        formatter.write("Begin with:\n")
        for command, does in _FIRST:
            formatter.write(f"  {command}\n      {does}\n")
