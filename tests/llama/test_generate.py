"""`fastattn generate` and `fastattn perplexity` on the real model."""
import json

import pytest


@pytest.fixture
def row(fastattn, tmp_path):
    def call(command, *arguments):
        path = tmp_path / "row.json"
        done = fastattn(command, *arguments, "--json", path, timeout=900)
        assert done.returncode == 0, done.stderr
        return json.loads(path.read_text()), done.stdout

    return call


def test_answer(row, model):
    found, text = row("generate", "-m", model, "-p", "What is the capital of France?", "-n", 12)
    assert "Paris" in text and found["text"] == text.rstrip("\n")
    assert found["finish"] == "end" and len(found["tokens"]) == found["generated_tokens"] == len(found["gaps"])
    assert found["prompt_tokens"] == 37 and found["attention"] == "fast"


def test_json_on_standard_output(fastattn, model):
    done = fastattn("generate", "-m", model, "-p", "Once upon a time", "--raw", "-n", 3, "--json", "-", timeout=900)
    assert done.returncode == 0 and json.loads(done.stdout)["generated_tokens"] == 3


def test_sampling_repeats_with_its_seed(row, model):
    how = ("-m", model, "-p", "Once upon a time", "--raw", "-n", 6, "--temp", 1.5, "--top-k", 50, "--top-p", 0.95)
    first, again, other = (row("generate", *how, "--seed", seed)[0]["tokens"] for seed in (1, 1, 2))
    assert first == again and first != other


def test_perplexity(row, model, tmp_path):
    text = tmp_path / "text"
    text.write_text("The sun rises in the east and sets in the west. Water boils when it is hot enough. " * 8)
    fast, _ = row("perplexity", "-m", model, "-f", text, "--ctx", 64)
    standard, _ = row("perplexity", "-m", model, "-f", text, "--ctx", 64, "--attention", "standard")
    assert 1.0 < fast["perplexity"] < 20.0 and fast["tokens"] == standard["tokens"]
    assert abs(fast["perplexity"] / standard["perplexity"] - 1.0) < 0.02
