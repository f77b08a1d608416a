"""The bundled models, served: what a person sends, and what a person might send by mistake."""

import functools
import io
import threading

import compose
import numpy as np
import pytest
from PIL import Image

from clients import Client, InvalidInputError
from export import recipes
from export.models.pictures import digits
from fathom.recipes import measure_served, measured_at_export
from loadtests.workload.workload import ModelWeight, Workload

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def client(served):
    with Client(served.grpc_url) as client:
        yield client


@pytest.fixture(scope="module")
def served_figures(client, exported_repository):
    """What a model earns behind the server, measured once."""
    return functools.cache(lambda name: measure_served(recipes.find(name), client, exported_repository))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def digit(index: int = 0) -> tuple[Image.Image, int]:
    data, truth = digits.held_out_png(index)
    return Image.open(io.BytesIO(data)), truth


@pytest.mark.parametrize("name", recipes.NAMES)
def test_accuracy_is_the_same_at_every_station(name, served_figures, exported_repository):
    recipe = recipes.find(name)
    measured = measured_at_export(recipe, exported_repository) | served_figures(name)
    assert set(measured) == {"source", "onnx", "served"} | ({"pipeline"} if recipe.systems[0].judged else set())
    for station, measurement in measured.items():
        for figure, value in measurement.accuracy.items():
            source = measured["source"].accuracy[figure]
            assert recipe.figure(figure).loss(source, value) <= 1e-6, (station, figure)
        if station != "source":
            assert measurement.parity.max_abs < 1e-5


def test_the_accuracies_are_worth_serving(served_figures):
    served = {name: served_figures(name) for name in recipes.NAMES}
    assert served["mobilenet_v2"]["pipeline"].accuracy["top1_accuracy"] >= 0.97
    assert served["minilm"]["pipeline"].accuracy["min_cosine_to_source"] >= 0.9999
    assert served["rain_forecast"]["served"].accuracy["brier_score"] < 0.1


FORMATS = {
    "PNG": {},
    "JPEG": {"quality": 90},
    "WEBP": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_usual_image_format_is_read(kind, client):
    image, truth = digit()
    big = image.convert("RGB").resize((300, 300), Image.Resampling.BICUBIC)
    ((best, *_),) = client.model("image_classifier").classify(image=[encoded(big, kind, **FORMATS[kind])])
    assert best.label == str(truth)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (64, 48), (1000, 1300)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16", "CMYK"])
def test_every_size_and_colour_mode_is_read(size, mode, client):
    image, _ = digit()
    gray = image.convert("L").resize(size, Image.Resampling.BICUBIC)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(gray, dtype=np.uint16) * 257)
    else:
        picture = gray.convert("RGB").convert(mode)
    data = encoded(picture, "TIFF" if mode == "CMYK" else "PNG")
    ((best, *_),) = client.model("image_classifier").classify(image=[data])
    assert 0 < best.value <= 1


def test_ink_on_paper_reads_as_well_as_light_on_dark(client):
    right = 0
    for index in range(40):
        image, truth = digit(index)
        gray = np.asarray(image.convert("L"))
        data = encoded(Image.fromarray(255 - gray))
        ((best, *_),) = client.model("image_classifier").classify(image=[data])
        right += best.label == str(truth)
    assert right >= 36


NOT_IMAGES = {
    "text": (b"this is a digit, honest", "image 0"),
    "nothing": (b"", "0 bytes"),
    "a cut-off PNG": (encoded(digit()[0].resize((64, 64)))[:200], "image 0"),
    "a PNG header and noise": (b"\x89PNG\r\n\x1a\n" + bytes(range(200)), "image 0"),
    "a decompression bomb": (encoded(Image.new("1", (10_000, 10_000))), "50000000"),
}


@pytest.mark.parametrize("case", NOT_IMAGES)
def test_what_is_not_an_image_is_invalid_input(case, client):
    data, words = NOT_IMAGES[case]
    with pytest.raises(InvalidInputError) as caught:
        client.model("image_classifier").classify(image=[data])
    assert words in str(caught.value)


def test_the_batch_mates_of_a_bad_image_are_answered(client):
    """Many at once, so that Triton batches good and bad ones together."""
    classifier = client.model("image_classifier")
    ends: dict[int, str] = {}

    def call(number: int) -> None:
        data, truth = digits.held_out_png(number)
        try:
            ((best, *_),) = classifier.classify(image=[b"no image" if number % 3 == 0 else data])
            ends[number] = "right" if best.label == str(truth) else "wrong"
        except InvalidInputError:
            ends[number] = "refused"

    threads = [threading.Thread(target=call, args=(number,)) for number in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number for number, end in ends.items() if end == "refused"} == set(range(0, 48, 3))
    assert sum(end == "right" for end in ends.values()) >= 30


def test_one_bad_image_in_a_request_is_named_by_its_place(client):
    data, _ = digits.held_out_png(0)
    with pytest.raises(InvalidInputError, match="image 2"):
        client.model("image_classifier").classify(image=[data, data, b"x"])


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_text_is_invalid_input(text, client):
    with pytest.raises(InvalidInputError, match="text 1"):
        client.model("text_embedding")(text=["hello", text])


def test_text_that_is_not_utf8_is_invalid_input(client):
    with pytest.raises(InvalidInputError, match="text 0"):
        client.model("text_embedding")(text=[b"\xff\xfe\x00"])


def test_a_very_long_text_is_cut_at_the_models_length(client):
    embed = client.model("text_embedding")
    (long,) = embed(text=["rain " * 20_000])["sentence_embedding"]
    (cut,) = embed(text=["rain " * 300])["sentence_embedding"]
    assert len("rain " * 20_000) == 100_000
    assert long @ cut == pytest.approx(1.0, abs=1e-5)


def test_texts_of_different_lengths_in_one_request_do_not_influence_each_other(client):
    embed = client.model("text_embedding")
    texts = ["rain", "the weather report promises rain for the whole of tomorrow afternoon " * 5, "日本語のテキスト"]
    together = embed(text=texts)["sentence_embedding"]
    alone = np.concatenate([embed(text=[text])["sentence_embedding"] for text in texts])
    assert np.abs(together - alone).max() < 1e-5
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_meaning_is_nearer_than_words(client):
    first, second, other = client.model("text_embedding")(
        text=["play some jazz", "put on some saxophone music", "the bank closed my account"]
    )["sentence_embedding"]
    assert first @ second > first @ other + 0.2


def test_the_server_lives_after_all_of_this(client, served):
    assert served.is_alive()
    assert client.is_ready()


def test_compose_loads_its_default_model_without_a_file_of_requests(served):
    command = compose.read({"TRITON_ADMIN_TOKEN": "a"})["services"]["load-master"]["command"]
    given = dict(word.removeprefix("--").split("=", 1) for word in command if "=" in word)
    assert given["inputs"] == ""
    with Workload(served.grpc_url, [ModelWeight.parse(given["model"])], seed=0) as traffic:
        traffic.check()
        ((target, pool),) = traffic.first_payloads
        for payload in pool[:3]:
            target.infer(payload, 60)
