"""Every YAML file in configs/ is read by the command it is written for."""

from pathlib import Path

import pytest
import yaml

from lcg import cli

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(ROOT.glob("configs/**/*.yaml"))

# Which command reads the files of a folder. --print_config checks every value against the constructors it names.
COMMAND_OF = {
    "data": "encode",
    "generator": "fit",
    "judge": "fit",
    "prior": "fit",
    "classifier": "fit",
    "baseline": "fit",
    "editor": "predict",
    "benchmark": "bench",
    "world": "bench",
    "trainer": "fit",
}
# Files of these folders are for other commands, if they have this option.
UNLESS = {
    ("data", "labeller"): "label generator",
    ("data", "latents"): "store import",
    ("generator", "generator"): "check-generator",
}
BORING = ("--model", "pytorch_lightning.demos.boring_classes.BoringModel")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def print_config(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    """What `lcg COMMAND ... --config PATH --print_config` prints."""
    folder, options = path.relative_to(ROOT / "configs").parts[0], yaml.safe_load(path.read_text())
    assert folder in COMMAND_OF, f"say in COMMAND_OF which command reads configs/{folder}"
    others = (command for (where, option), command in UNLESS.items() if where == folder and option in options)
    words = next(others, COMMAND_OF[folder]).split()
    try:
        code = cli.main([*words, *more, "--config", str(path), "--print_config"])
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr()
    assert code in (0, None), shown.err
    return yaml.safe_load(shown.out)


def contains(whole: object, part: object) -> bool:
    """Whether every value of `part` stands in the same place of `whole`."""
    if isinstance(part, dict) and isinstance(whole, dict):
        named = {key.removesuffix("+"): value for key, value in part.items()}  # `tasks+` adds to the list `tasks`
        return all(key in whole and contains(whole[key], value) for key, value in named.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(contains, whole, part))
    return bool(whole == part)


def test_there_are_configs() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config_is_read_by_its_command(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["lcg"])
    written = yaml.safe_load(path.read_text())
    assert isinstance(written, dict), "a config is a mapping of options"
    printed = print_config(path, capsys, *(BORING if path.parent.name == "trainer" else ()))
    assert contains(printed, written), "a value was read as something else than it says"


@pytest.mark.parametrize("trainer", sorted(ROOT.glob("configs/trainer/*.yaml")), ids=name)
def test_trainer_config_goes_on_top_of_another(
    trainer: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["lcg"])
    below = tmp_path / "below.yaml"
    below.write_text("trainer:\n  max_epochs: 7\n  accelerator: tpu\n  logger: false\n")
    printed = print_config(trainer, capsys, *BORING, "--config", str(below))
    options = printed["trainer"]
    assert isinstance(options, dict)
    written = yaml.safe_load(trainer.read_text())["trainer"]
    assert options["max_epochs"] == 7 and contains(options, written)
