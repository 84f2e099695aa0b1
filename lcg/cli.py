"""The command line: one `lcg`, two kinds of commands.

    fit validate test predict                         Lightning's own, over any LightningModule and LightningDataModule
    encode generate edit verify export bench ...      a function each: its signature is the options, its docstring help

Both take YAML files (`--config`, repeated, later ones win) and dotted overrides (`--trainer.max_epochs 3`). Nothing is
imported before the command is known: Lightning alone takes seconds, and `lcg --help` should not.

What the user got wrong is one message on stderr and exit code 2: an option or a file that does not exist, or anything
that lcg itself refuses. Whatever else goes wrong is a bug, here or elsewhere, and keeps its traceback. `LCG_DEBUG=1`
keeps all of them.
"""

from __future__ import annotations

import dis
import errno
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType

from lcg import __version__
from lcg.job_parser import JobParser
from lcg.memory import keep_memory
from lcg.schema import unknown_name

USAGE_ERROR = 2  # as argparse has it
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
PIPE_CLOSED = 141  # 128 + SIGPIPE
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ELSEWHERE = MappingProxyType(
    {"train": "fit", "sample": "generate", "manipulate": "edit", "benchmark": "bench", "eval": "bench"}
)
"""What other programs call our commands."""


@dataclass(frozen=True)
class Job:
    """A command that calls a function.

    Args:
        summary: one line for `lcg --help`.
        target: the function, as "module:function"; imported when the command runs.
        positional: whether the function's required parameters are positional arguments rather than options.
        kept: whether the options are kept as config.yaml in `out`; not where that is a folder to give to others.
    """

    summary: str
    target: str
    positional: bool = False
    kept: bool = True

    def load(self) -> Callable[..., object]:
        """The function itself."""
        module, _, function = self.target.partition(":")
        loaded: Callable[..., object] = getattr(importlib.import_module(module), function)
        return loaded


TRAINER_COMMANDS = MappingProxyType(
    {
        "fit": "train a prior or a classifier on a latent store",
        "validate": "its validation metrics, from a checkpoint",
        "test": "its test metrics, from a checkpoint",
        "predict": "its predictions, from a checkpoint",
    }
)
JOBS = MappingProxyType(
    {
        "encode": Job("images and their attribute table -> latent store", "lcg.encoding.job:encode_job"),
        "store info": Job("what is in a latent store", "lcg.data.store.commands:info_job", positional=True),
        "store verify": Job("is every byte as it was written?", "lcg.data.store.commands:verify_job", positional=True),
        "store merge": Job("several stores -> one", "lcg.data.store.commands:merge_job", positional=True),
        "store split": Job("one store -> several", "lcg.data.store.commands:split_job", positional=True),
        "store import": Job("your own latents and their table -> latent store", "lcg.data.store.commands:import_job"),
        "label generator": Job("a generator's own draws -> latent store", "lcg.labels.job:generator_job"),
        "label store": Job("a store's latents -> store with further labels", "lcg.labels.job:store_job"),
        "label next": Job("which latents to label next: a sheet and a table", "lcg.labels.active_job:next_job"),
        "label merge": Job("a filled table -> store with its labels", "lcg.labels.active_job:merge_job"),
        "label images": Job("image files -> their attribute table", "lcg.labels.job:images_job"),
        "label thresholds": Job("thresholds chosen on images -> a file of them", "lcg.labels.job:thresholds_job"),
        "new": Job("begin an adapter of your own generator", "lcg.scaffold.job:new_job", positional=True),
        "check-generator": Job("does a generator keep its contract?", "lcg.generators.check_job:check_generator_job"),
        "convert-stylegan": Job(
            "an official StyleGAN2 or StyleGAN3 -> weights for lcg, without executing its file",
            "lcg.generators.stylegan.convert:convert_stylegan_job",
            positional=True,
            kept=False,
        ),
        "convert-diffae": Job(
            "a released diffusion autoencoder -> weights for lcg, without executing its file",
            "lcg.generators.diffusion_autoencoder.official:convert",
            positional=True,
            kept=False,
        ),
        "transfer": Job("stores of two generators -> a map between their latents", "lcg.transfer.job:transfer_job"),
        "generate": Job("images that satisfy a formula over attributes", "lcg.generation.job:generate_job"),
        "edit": Job("edit images, one attribute after another", "lcg.commands:edit_job"),
        "verify": Job("is the mathematics right, and does a trained pair obey it?", "lcg.conformance.job:verify_job"),
        "export": Job("prior and classifiers -> one folder to give to others", "lcg.models.job:export_job", kept=False),
        "bench": Job("methods x requests -> results.csv", "lcg.benchmarks.jobs:bench_job"),
        "sweep": Job(
            "a W&B sweep file, run here without a server", "lcg.benchmarks.sweeps.job:sweep_job", positional=True
        ),
        "report": Job(
            "a benchmark's directory -> report.html, report.md, tables.tex",
            "lcg.benchmarks.report.job:report_job",
            positional=True,
        ),
        "app": Job("a page in the browser to generate, edit and explore with", "lcg.app.job:app_job", kept=False),
    }
)
GROUPS = MappingProxyType(
    {
        "store": "look into latent stores, check, join and divide them, or bring latents of your own",
        "label": "labels from a function or a model: for draws of a generator, a store's latents, or image files",
    }
)
"""What the commands of two words, such as `store info` among the jobs, have in common, by their first word."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after `lcg`; those of the process by default.

    Returns:
        The exit code: 0 done, 1 a verification that failed, 2 the user's error, 130 interrupted, 141 nobody reads
            what is printed.

    Raises:
        SystemExit: raised by the parsers, after a command's own `--help` (0) or for a wrong option (2), and by a fit
            that a signal has stopped (128 and its number).
    """
    if argv is None:  # a process of our own
        keep_memory()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None:
            sys.path.append(working_folder())  # a class_path may name what lies here, and hides nothing installed
        code = dispatch(arguments)
        print(end="", flush=True)  # what nobody reads any more is told now, and not after the end
        return code
    except BrokenPipeError:  # `lcg ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning shuts down gracefully, then exits with 1
            return INTERRUPTED
        raise
    except Exception as error:
        if os.environ.get("LCG_DEBUG", "0") not in ("", "0") or not is_users(error):
            raise
        command = next((name for name in named(arguments) if name in TRAINER_COMMANDS or name in JOBS), None)
        print(f"lcg{f' {command}' if command else ''}: {describe(error)}", file=sys.stderr)
        return USAGE_ERROR


def dispatch(arguments: list[str]) -> int:
    """Gives the arguments to the command that they name."""
    command = arguments[0] if arguments else None
    if command is None or command in ("-h", "--help", "help"):
        print(overview(), file=sys.stderr if command is None else sys.stdout)
        return USAGE_ERROR if command is None else 0
    if command in ("-V", "--version"):
        print(f"lcg {__version__}")
    elif command in TRAINER_COMMANDS:
        from lcg.trainer_command import run_trainer  # Lightning, seconds

        run_trainer(command, arguments)
    elif command in GROUPS:
        return run_group(command, arguments[1:])
    elif command in JOBS:
        return run_job(command, JOBS[command], arguments[1:])
    elif command.startswith("-"):
        raise ValueError(f"expected a command before its options, got {command!r}; `lcg --help` lists the commands")
    else:
        if command in ELSEWHERE:
            raise ValueError(f"unknown command {command!r}; it is `lcg {ELSEWHERE[command]}`")
        raise unknown_name("command", command, (*TRAINER_COMMANDS, *JOBS, *GROUPS), "lcg")
    return 0


def working_folder() -> str:
    """Where the command was given. Raises FileNotFoundError if that folder is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise FileNotFoundError("the working folder does not exist any more; change into another one") from error


def named(arguments: Sequence[str]) -> tuple[str, str]:
    """What the command may be called: the first word, or the first two."""
    return " ".join(arguments[:1]), " ".join(arguments[:2])


def table_of(commands: Mapping[str, str]) -> str:
    """A line for each command and its summary."""
    width = max(map(len, commands)) + 2
    return "\n".join(f"  {name:<{width}}{summary}" for name, summary in commands.items())


def run_group(group: str, arguments: list[str]) -> int:
    """Runs one of the commands of a group, such as `info` of `store`; `arguments` are those after the group's name."""
    jobs = {name.partition(" ")[2]: job for name, job in JOBS.items() if name.startswith(f"{group} ")}
    command = arguments[0] if arguments else None
    if command is None or command in ("-h", "--help", "help"):
        table = table_of({name: job.summary for name, job in jobs.items()})
        text = f"usage: lcg {group} COMMAND [--option VALUE ...]\n\n{GROUPS[group]}\n\ncommands:\n{table}"
        print(text, file=sys.stderr if command is None else sys.stdout)
        return USAGE_ERROR if command is None else 0
    if command not in jobs:
        raise unknown_name("command", command, jobs, f"lcg {group}")
    return run_job(f"{group} {command}", jobs[command], arguments[1:])


def overview() -> str:
    """The help of `lcg` itself."""
    single = {name: job.summary for name, job in JOBS.items() if " " not in name}
    table = table_of({**TRAINER_COMMANDS, **single, **GROUPS})
    return (
        "usage: lcg COMMAND [--config FILE.yaml ...] [--option VALUE ...]\n\n"
        "Latent Classifier Guidance: compositional generation and editing in the latent space of any generator.\n\n"
        "Nothing has to be trained to begin with:\n"
        '  lcg generate --model avatars --formula "glasses & smile & ~beard"\n'
        "  lcg app\n\n"
        f"commands:\n{table}\n\n"
        "`lcg COMMAND --help` lists the options of a command, `lcg COMMAND --print_config` prints them as YAML.\n"
        "`lcg --version` prints the version. LCG_DEBUG=1 shows the traceback of every error."
    )


def run_job(command: str, job: Job, arguments: list[str]) -> int:
    """Calls the job's function with what the arguments say, and leaves the configuration in the directory `out`.

    Returns:
        What the function returns if that is a number, 0 otherwise: the exit code.
    """
    function = job.load()
    parser = JobParser(command, function, job.positional)
    config = parser.parse(arguments)
    values = parser.values(config)
    returned = function(**values)
    out = values.get("out")
    if job.kept and out is not None and Path(out).is_dir() and os.environ.get("LOCAL_RANK", "0") == "0":
        parser.save(config, Path(out))
    return returned if isinstance(returned, int) else 0


def is_users(error: Exception) -> bool:
    """Whether this error is the user's to mend: the system refused a file, or a `raise` in lcg refused an argument.

    A TypeError that Python itself raised within lcg (`None + 1`) is of the same type but not refused by anybody: it is
    a bug, and told apart by the instruction that raised it.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, ValueError | TypeError | RuntimeError | ImportError) or error.__traceback__ is None:
        return False
    innermost: TracebackType = error.__traceback__
    while innermost.tb_next is not None:
        innermost = innermost.tb_next
    code = innermost.tb_frame.f_code
    raised_here = dis.opname[code.co_code[innermost.tb_lasti]] == "RAISE_VARARGS"
    return raised_here and Path(__file__).parent in Path(code.co_filename).parents


def describe(error: Exception) -> str:
    """The message of an error; a file the system refused is named first, without the error's number."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; make room, or choose a folder on another disk, and run it again"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
