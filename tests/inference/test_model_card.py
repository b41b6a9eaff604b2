"""The model card of `export --format timm`: read by yaml, the hub's own classes and a Markdown parser."""

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from scipy.stats import binomtest

from resnext.__main__ import run_verb
from resnext.config.checkpoint_metadata import CheckpointMetadata
from resnext.errors import UserError
from resnext.inference.export import export, sample_images
from resnext.inference.markdown import code_block, escape
from resnext.inference.model_card import build_card
from resnext.inference.network import TrainedNetwork, load_network, open_network
from resnext.inference.predict import Predictor
from resnext.models.factory import build_model
from resnext.run.directory import Run
from support.small_run import read_metrics, small_config

VAL_IMAGES = 24
HOSTILE = (
    "a|b",
    'the "best" one',
    "two\nlines",
    "---",
    "# title",
    "<script>alert(1)</script>",
    "[link](http://x)",
    "`code` *bold* _it_ ~~no~~",
    "back\\slash\\|",
    "&amp;",
    "$x$ :smile:",
    "\udcff not UTF-8",
    "\u2028separator\x1b[31m",
)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "runs/my_run"))


def exported(run: Path, *arguments: str, output: str = "out") -> str:
    assert run_verb(["export", str(run), "--format", "timm", "--output", output, *arguments]) == 0
    return Path(output, "README.md").read_text(encoding="utf-8")


def front_matter(card: str) -> dict[str, Any]:
    """By a rule of its own: between the first two lines that are `---`."""
    begin, matter, _ = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    assert begin == ""
    found = yaml.safe_load(matter)
    assert found == ModelCard(card).data.to_dict()
    return found


def rendered(card: str) -> str:
    """The HTML of the card without its front matter, by a CommonMark parser with tables and strikethrough."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(ModelCard(card).text)


def text_of(html: str) -> str:
    for name, character in {"lt": "<", "gt": ">", "quot": '"', "amp": "&"}.items():
        html = re.sub(r"<[^>]*>", "", html) if name == "lt" else html
        html = html.replace(f"&{name};", character)
    return html


def evaluation_of(run: Path, **changes: object) -> dict[str, Any]:
    """In the form that `resnext evaluate` writes."""
    step = load_network(run / "checkpoints/best.ckpt").step
    scores = {
        network: {
            "top1": {"value": top1, "low": top1 - 0.1, "high": top1 + 0.1},
            "top5": {"value": 1.0, "low": 0.86, "high": 1.0},
            "loss": 0.31,
            "calibration_error": 0.0234,
            "temperature": 1.3,
            "per_class": [{"class": "cat", "images": 8, "top1": 1.0}],
        }
        for network, top1 in (("ema", 0.625), ("raw", 0.5))
    }
    about = {"run": str(run), "checkpoint": "best", "step": step, "split": "val", "data": "/images", "is_own": True}
    sizes = {"images": VAL_IMAGES, "classes": 3, "image_size": 32, "tta": None}
    return {**about, **sizes, "networks": scores, **changes}


def write_evaluation(run: Path, content: object) -> None:
    (run / "evaluations").mkdir(exist_ok=True)
    (run / "evaluations/best-val.json").write_text(json.dumps(content))


def test_the_card_has_what_the_command_has_measured(run: Path):
    assert run_verb(["evaluate", str(run)]) == 0
    measured = json.loads((run / "evaluations/best-val.json").read_text())["networks"]["ema"]["top1"]
    card = exported(run)
    low, high = 100 * measured["low"], 100 * measured["high"]
    assert f"| top-1 accuracy | {100 * measured['value']:.2f} % | {low:.2f} % to {high:.2f} % |" in card
    (result,) = front_matter(card)["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(measured["value"], abs=1e-6)


def test_a_folder_has_no_licence_and_no_origin_of_timms_own_weights(tmp_path: Path):
    """A network with the name of one of timm's, whose weights are random."""
    config = small_config(Path(), model={"name": "resnext50_32x4d"})
    network = build_model(config.model, 3).eval()
    trained = TrainedNetwork(network, CheckpointMetadata.of(config, ("a", "b", "c")))
    images, _ = sample_images(trained.metadata, None)
    export(trained, "timm", tmp_path / "out", images)
    written = json.loads((tmp_path / "out/config.json").read_text())["pretrained_cfg"]
    assert not {"license", "tag", "paper_ids", "origin_url", "hf_hub_id", "url"} & written.keys()


def test_without_an_evaluation_the_card_has_the_accuracy_of_the_training(run: Path):
    card = exported(run)
    step = load_network(run / "checkpoints/best.ckpt").step
    row = next(row for row in read_metrics(Run(run)) if row["val_ema/top1"] and int(row["step"]) == step)
    value = float(row["val_ema/top1"])
    low, high = binomtest(round(value * VAL_IMAGES), VAL_IMAGES).proportion_ci(method="wilson")
    assert f"| top-1 accuracy | {100 * value:.2f} % | {100 * low:.2f} % to {100 * high:.2f} % |" in card
    assert f"From the validation during the training, after epoch {row['epoch']}, on 24 images." in card
    assert front_matter(card) == {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "resnext"],
    }
    assert "Licence: no licence was given" in card
    html = rendered(card)
    assert [html.count(tag) for tag in ("<h1>", "<h2>", "<table>")] == [1, 4, 1]
    assert "24 for the training, 24 for the validation" in html
    assert "top-5" not in card  # of three classes


def test_the_card_has_the_numbers_of_evaluate_for_the_exported_weights(run: Path):
    write_evaluation(run, evaluation_of(run))
    for arguments, value, line in (
        ((), 0.625, "62.50 % | 52.50 % to 72.50 %"),
        (("--weights", "raw"), 0.5, "50.00 % | 40.00 % to 60.00 %"),
    ):
        card = exported(run, *arguments, output=f"out{value}")
        assert f"| top-1 accuracy | {line} |" in card
        assert "Measured by `resnext evaluate` on the 24 validation images of the run." in card
        assert "| expected calibration error | 0.0234 | |" in card
        (model,) = front_matter(card)["model-index"]
        (result,) = model["results"]
        assert model["name"] == f"out{value}"
        assert result["task"] == {"type": "image-classification", "name": "Image Classification"}
        assert result["dataset"] == {"name": "image_folder", "type": "image_folder", "split": "validation"}
        assert result["metrics"] == [{"type": "accuracy", "value": value, "name": "top-1 accuracy"}]


def test_an_evaluation_of_something_else_is_not_on_the_card(run: Path):
    network, changes = open_network(run), [{"step": 1}, {"split": "test"}, {"is_own": False}, {"image_size": 48}]
    for change in [*changes, {"tta": "flip"}, {"networks": {}}]:
        write_evaluation(run, evaluation_of(run, **change))
        card = build_card(network, Run.open(run), "out").text
        assert "From the validation during the training" in card
        assert "model-index" not in front_matter(card)


def test_a_damaged_evaluation_stops_the_export(run: Path, capsys: pytest.CaptureFixture[str]):
    write_evaluation(run, {})
    assert run_verb(["export", str(run), "--format", "timm", "--output", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"evaluations/best-val.json is damaged \(step: .*\): remove it, or write it again", line)
    assert not Path("out").exists()
    network = open_network(run)
    for content in ("", "{", "[]", '{"step": 3}', "\x00", '{"step": NaN}'):
        (run / "evaluations/best-val.json").write_text(content)
        with pytest.raises(UserError, match=r"evaluations/best-val.json is damaged \(.*\): remove it, or write it"):
            build_card(network, Run.open(run), "out")


def test_a_value_that_is_not_a_fraction_is_damage(run: Path):
    evaluation = evaluation_of(run)
    evaluation["networks"]["ema"]["top1"]["value"] = 95.0
    write_evaluation(run, evaluation)
    with pytest.raises(
        UserError, match=r"is damaged \(networks.ema.top1.value: Input should be less than or equal to 1"
    ):
        build_card(open_network(run), Run.open(run), "out")


def test_the_code_on_the_card_gives_the_classes_that_predict_gives(trained: Path, tmp_path: Path):
    card = exported(trained)
    photo = next((trained.parents[1] / "images/val").rglob("*.png"))
    shutil.copy(photo, tmp_path / "photo.jpg")
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    with redirect_stdout(io.StringIO()) as output:
        exec(code, {})
    found = [line.split(" ", 1) for line in output.getvalue().splitlines()]
    (expected,) = Predictor.from_run(trained)([photo])
    assert [name for _, name in found] == [guess.name for guess in expected]
    for (probability, _), guess in zip(found, expected, strict=True):
        assert float(probability) == pytest.approx(guess.probability, abs=0.01)  # timm resizes with Pillow


def with_classes(trained: Path, classes: tuple[str, ...]) -> TrainedNetwork:
    own = open_network(trained)
    network = own.network
    head = timm.create_model("resnet18", num_classes=len(classes)).fc
    network.fc = type(head)(network.fc.in_features, len(classes))
    return own._replace(network=network, metadata=own.metadata._replace(classes=classes))


def test_hostile_names_stay_text(run: Path):
    """As class names, as the name of the folder, and as the name of the model on the hub."""
    write_evaluation(run, evaluation_of(run))
    network = with_classes(run, HOSTILE)
    shown = ["".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name) for name in HOSTILE]
    for name, shown_name in zip(HOSTILE, shown, strict=True):
        card = build_card(network, Run.open(run), name, license="mit").text
        card.encode()
        matter = front_matter(card)
        assert (matter["license"], matter["model-index"][0]["name"]) == ("mit", shown_name)
        html = rendered(card)
        assert [html.count(tag) for tag in ("<h1>", "<h2>", "<table>")] == [1, 4, 1]
        for tag in ("<hr", "<script", '<a href="http://x', "<em>", "<strong>", "<s>", "<img", "<code>code"):
            assert tag not in html
        text = text_of(html)
        assert all(each in text for each in shown)


def test_a_folder_with_hostile_class_names_opens_in_timm(trained: Path):
    network = with_classes(trained, HOSTILE)
    images, _ = sample_images(network.metadata, None)
    card = build_card(network, None, "out")
    export(network, "timm", Path("out"), images, card=card.text)
    assert timm.create_model("local-dir:out", pretrained=True).pretrained_cfg["label_names"] == list(HOSTILE)
    assert sorted(each.name for each in Path("out").iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_file_without_its_run_gives_a_card_of_its_metadata(trained: Path):
    shutil.copy(trained / "checkpoints/best.ckpt", "copy.ckpt")
    card = exported(Path("copy.ckpt"))
    assert "The accuracy of these weights is not known." in card
    assert "The run is not known: this card has only what the file of the weights says." in card
    assert "3 classes: cat, dog, éléphant" in card
    assert "model-index" not in front_matter(card)
    assert "Weights: EMA weights (exponential moving average), after " in card


def test_a_card_of_an_exported_file_does_not_guess_which_weights_it_has(trained: Path):
    assert run_verb(["export", str(trained), "--format", "safetensors", "--output", "ema.safetensors"]) == 0
    assert "Weights: those of the exported file" in exported(Path("ema.safetensors"))


def test_the_license_is_in_the_front_matter_and_in_the_text(trained: Path, capsys: pytest.CaptureFixture[str]):
    card = exported(trained, "--license", "Apache-2.0")
    assert "licence apache-2.0" in capsys.readouterr().out
    assert front_matter(card)["license"] == "apache-2.0"
    assert "Licence: apache-2.0" in text_of(rendered(card))
    for wrong in ("", "my own\nlicense", "a: b", "---"):
        assert run_verb(["export", str(trained), "--format", "timm", "--output", "b", f"--license={wrong}"]) == 2
        assert "is not an identifier: give one of the hub's, such as apache-2.0" in capsys.readouterr().err
    assert run_verb(["export", str(trained), "--format", "torch", "--output", "b.pt", "--license", "mit"]) == 2
    assert "--license is for --format timm, and not for --format torch" in capsys.readouterr().err
    assert not Path("b").exists()


def test_the_card_has_the_origin_of_the_run(run: Path):
    info = json.loads((run / "run.json").read_text())
    info["command"] = ["resnext", "train", "run=my run", "data.root=https://me:secret@host/x", "a=```\n---\nb"]
    info["code"] = "0123456789abcdef+12345678"
    info["created"] = "2026-11-20T10:00:00+0000"
    info["starts"][0] |= {"code": info["code"], "time": "2026-11-21T10:00:00+0000"}
    (run / "run.json").write_text(json.dumps(info))
    card = build_card(open_network(run), Run.open(run), "out").text
    html = rendered(card)
    assert "0123456789abcdef+12345678 (commit, and a digest of uncommitted changes)" in html
    assert "2026-11-20 to 2026-11-21" in html
    assert f"timm {timm.__version__}" in html
    assert "secret" not in card
    command = "resnext train 'run=my run' data.root=https://***@host/x 'a=```\n---\nb'\n"
    assert f"<pre><code>{command}</code></pre>" in html.replace("&quot;", '"')
    assert "Epochs: 2, with batches of 8 images, seed 0" in html


def test_the_weights_of_the_start_and_a_public_data_set_are_named(run: Path):
    config = yaml.safe_load((run / "starts/1.yaml").read_text())
    config["model"]["weights"] = "timm:resnext50_32x4d.a1_in1k"
    config["data"]["name"] = "imagenet"
    config["recipe"] |= {"file": "a3", "source": "ResNet strikes back, arXiv 2110.00476"}
    (run / "starts/1.yaml").write_text(yaml.safe_dump(config))
    card = build_card(open_network(run), Run.open(run), "out").text
    assert front_matter(card)["datasets"] == ["imagenet-1k"]
    text = text_of(rendered(card))
    assert "Started from: timm:resnext50_32x4d.a1_in1k, whose licence is apache-2.0 according to timm" in text
    assert "Recipe: a3\nSource of the recipe: ResNet strikes back, arXiv 2110.00476" in text
    config["model"]["weights"] = "torchvision:resnext50_32x4d"
    (run / "starts/1.yaml").write_text(yaml.safe_dump(config))
    text = text_of(rendered(build_card(open_network(run), Run.open(run), "out").text))
    assert "Started from: torchvision:resnext50_32x4d, whose licence is not known here" in text


def test_only_the_first_classes_of_many_are_listed(trained: Path):
    card = build_card(with_classes(trained, tuple(f"class{n}" for n in range(1000))), None, "out").text
    assert "1,000 classes: class0, class1, " in card
    assert ", class99 and 900 more, in `config.json`" in card


def test_a_card_that_cannot_be_written_leaves_no_folder(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(path: Path, _content: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("resnext.inference.export.atomic_write", fail)
    assert run_verb(["export", str(trained), "--format", "timm", "--output", "out/in"]) == 2
    assert "README.md: No space left on device; make room" in capsys.readouterr().err
    assert not list(Path("out").iterdir())


def test_text_in_a_cell_of_a_table_stays_in_its_cell():
    for name in HOSTILE:
        table = f"| a | b |\n|---|---|\n| {escape(name)} | last |\n"
        cells = re.findall(r"<td>(.*?)</td>", MarkdownIt("commonmark").enable("table").render(table), re.DOTALL)
        assert len(cells) == 2
        assert cells[1] == "last"


def test_a_fence_is_longer_than_the_backticks_in_it():
    text = "a\n`````\nb"
    assert MarkdownIt("commonmark").render(code_block(text)) == f"<pre><code>{text}\n</code></pre>\n"
