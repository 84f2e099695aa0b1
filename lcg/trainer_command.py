"""`lcg fit`, `validate`, `test` and `predict`: LightningCLI, and a fit that survives what ends it.

Every fit has `VerifiedCheckpointIO`, `Survival` and `RunRecord` (`lcg.modules`) without its config naming them;
one that names a CheckpointIO of its own keeps that. `--out` moves a run, all of it, to another folder. `--ckpt_path`
takes `last` and `auto` beside what Lightning knows, and what it names is checked before anything is built.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger

from lcg.job_parser import without_parser
from lcg.modules.checkpoint_io import CheckpointNotSavedError, VerifiedCheckpointIO, whole_generation
from lcg.modules.metrics_file import continue_metrics
from lcg.modules.resume import AUTO, LAST, resolve
from lcg.modules.run_folder import read_record, run_folder
from lcg.modules.run_record import RunRecord, outcome_of
from lcg.modules.survival import Survival
from lcg.wrong_options import check_configs, explain, option_names

ELSEWHERE = (LAST, AUTO, "best", "hpc", "registry")
"""Values of `--ckpt_path` that are no paths."""


class TrainerCLI(LightningCLI):
    """LightningCLI of one command; building the parser of each takes a second or more, and one is enough."""

    command: str

    def __init_subclass__(cls, command: str) -> None:
        cls.command = command

    @classmethod
    def subcommands(cls) -> dict[str, set[str]]:
        return {cls.command: LightningCLI.subcommands()[cls.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--out",
            type=str | None,
            default=None,
            help="folder of the run, in the place of trainer.default_root_dir; what lies in that one moves along: "
            "checkpoints, logs, exported weights",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Raises ValueError, or FileNotFoundError for a YAML file that is not there."""
        check_configs(sys.argv[1:] if args is None else list(args))
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            names = option_names(self._subcommand_parsers[self.command])
            told = str(error).replace(f"required: {self.command}.", "required: ")
            raise ValueError(explain(told, self.command, names)) from error

    def instantiate_classes(self) -> None:
        """Raises ValueError for what constructors refuse, of lcg, of Lightning or the user's own."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            raised = without_parser(error)
        else:
            return
        if isinstance(raised, ValueError | MisconfigurationException | ImportError):
            raise ValueError(str(raised)) from raised
        raise raised

    def before_instantiate_classes(self) -> None:
        """Moves the run to `out`. A logger's `save_dir: .` is the Trainer's folder, which moves all logs."""
        options = self.config[self.command]
        trainer = options.trainer
        if options.out is not None:
            options.out = os.path.expandvars(options.out)  # such as runs/agent/$WANDB_RUN_ID
            for callback in listed(trainer.callbacks):
                move_paths(callback, trainer.default_root_dir, options.out)
            trainer.default_root_dir = options.out
        for logger in trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]:
            options = getattr(logger, "init_args", {})
            if options.get("save_dir") == "." and trainer.default_root_dir is not None:
                options["save_dir"] = trainer.default_root_dir

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds what lets a fit survive. Raises ValueError for a GPU that is not there."""
        options = self._get(self.config_init, "trainer")
        gpus = CUDAAccelerator.is_available() or MPSAccelerator.is_available()
        if options.accelerator in ("gpu", "cuda") and not gpus:
            raise ValueError(
                f"`trainer.accelerator` is {options.accelerator!r}, but no GPU was found; use --trainer.accelerator cpu"
            )
        plugins = listed(options.plugins)
        if any(isinstance(plugin, SLURMEnvironment) for plugin in plugins) and "SLURM_NTASKS" not in os.environ:
            raise ValueError(
                "`trainer.plugins` has SLURMEnvironment, but srun did not start this process; put `srun` before the "
                "command in the script of the job, or leave configs/trainer/slurm.yaml away"
            )
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(VerifiedCheckpointIO())
        callbacks: list[Callback] = listed(options.callbacks)
        for kind in (Survival, RunRecord) if self.command == "fit" else (RunRecord,):  # it is named in checkpoints
            if not any(isinstance(callback, kind) for callback in callbacks):
                callbacks.append(kind())
        return super().instantiate_trainer(plugins=plugins, callbacks=callbacks, **kwargs)

    def _parse_ckpt_path(self) -> None:
        """Refuses a checkpoint that is missing or damaged before anything is built."""
        options = self.config[self.command]
        path = options.get("ckpt_path")
        if path and "://" not in str(path) and str(path).partition(":")[0] not in ELSEWHERE:
            options["ckpt_path"] = str(whole_generation(Path(path)))
        super()._parse_ckpt_path()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        trainer = self.trainer
        requeued = trainer._checkpoint_connector._hpc_resume_path if SLURMEnvironment.detect() else None
        run = read_record(run_folder(trainer)).get("run")
        arguments["ckpt_path"] = resolve(arguments.get("ckpt_path") or requeued, trainer, run)
        if subcommand != "fit":  # a CSVLogger would delete what the training has logged there
            for logger in trainer.loggers:
                if isinstance(logger, CSVLogger):
                    continue_metrics(logger)
        return arguments

    def fit(self, **arguments: Any) -> None:
        """`Trainer.fit`, with a record of it."""
        trainer: Any = self.trainer
        (record,) = (callback for callback in trainer.callbacks if isinstance(callback, RunRecord))
        try:
            record.begin(trainer, arguments["ckpt_path"])
            trainer.fit(**arguments)
        except BaseException as error:
            record.end(trainer, outcome_of(error))
            raise


def listed(value: Any) -> list[Any]:
    """Options that may be none, one or several, as a list of their own."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def move_paths(callback: Any, root: str, out: str) -> None:
    """Changes those options of a callback that are paths in the folder `root` to the same in `out`."""
    arguments = getattr(callback, "init_args", {})
    for name, value in list(arguments.items()):
        if isinstance(value, str | os.PathLike) and Path(value).is_relative_to(root):
            arguments[name] = str(Path(out) / Path(value).relative_to(root))


def run_trainer(command: str, arguments: list[str]) -> None:
    """Runs fit, validate, test or predict through LightningCLI; `arguments` begin with the command.

    Raises:
        ValueError: Lightning cannot run what the configuration asks for (a GPU where there is none), there is nothing
            to resume, or a checkpoint is of another model.
        OSError: a folder or a full disk refuses to be written.
    """

    class OneCommandCLI(TrainerCLI, command=command):
        pass

    try:
        OneCommandCLI(
            # None stands for sys.argv: given both, Lightning warns, and its launchers start sys.argv again for DDP.
            args=None if arguments == sys.argv[1:] else arguments,
            parser_kwargs={"prog": "lcg", "exit_on_error": False, command: {"exit_on_error": False}},
            seed_everything_default=0,
            trainer_defaults={"accelerator": "auto", "default_root_dir": "runs"},
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,  # our modules configure their own: constructors are the config
        )
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        first = str(error).splitlines()[1].strip().rstrip(".:")
        raise ValueError(
            f"the checkpoint is of another model, or of another store, than the config ({first}); give the config that "
            "it was made with, or leave out --ckpt_path"
        ) from error
    except OSError as error:
        # On a full disk loggers fail too, while the Trainer shuts down: what they say must not hide the first.
        raise first_of(error) from error


def first_of(error: BaseException) -> BaseException:
    """The checkpoint that could not be saved, if that is what an error came of; else the error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, CheckpointNotSavedError):
            return cause
        cause = cause.__context__
    return error
