"""`fastattn perplexity --save-logits` and `--compare-logits` on the real model."""
import importlib.util
import json

import numpy as np
import pytest

TEXT = "The sun rises in the east and sets in the west. Water boils when it is hot enough."
HEAD = [("magic", "S8"), ("version", "<u4"), ("kept", "<u4"), ("vocabulary", "<u4"), ("window", "<u4"), ("predictions", "<u8")]


def read(path):
    data = path.read_bytes()
    head = np.frombuffer(data, HEAD, 1)[0]
    kept = int(head["kept"])
    rows = np.frombuffer(data, [("token", "<i4"), ("logit", "<f4"), ("log_sum", "<f4"), ("ids", "<i4", (kept,)),
                                ("logits", "<f4", (kept,))], offset=32)
    return head, rows


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def saved(fastattn, model, text):
    path = text.parent / "saved"
    done = fastattn("perplexity", "-m", model, "-f", text, "--ctx", 12, "--dtype", "f32", "--top", 16, "--save-logits", path,
                    "--json", text.parent / "row", timeout=900)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in text.parent.iterdir()) == ["row", "saved", "text"]
    return path, json.loads((text.parent / "row").read_text())


@pytest.fixture
def compare(fastattn, model, text, tmp_path):
    def call(path, *arguments, ctx=12, file=text):
        done = fastattn("perplexity", "-m", model, "-f", file, "--ctx", ctx, "--compare-logits", path, *arguments, "--json",
                        tmp_path / "row", timeout=900)
        if done.returncode:
            assert done.stderr.startswith("fastattn perplexity: ") and done.stderr.count("\n") == 1, done.stderr
            assert done.stdout == "" and not (tmp_path / "row").exists()
            return done.returncode, done.stderr
        assert "against " in done.stdout
        return 0, json.loads((tmp_path / "row").read_text())["comparison"]

    return call


def test_what_is_saved(saved):
    head, rows = read(saved[0])
    assert head["magic"] == b"FALOGITS" and head["version"] == 1 and head["kept"] == 16 and head["window"] == 12
    assert len(rows) == head["predictions"] == saved[1]["tokens"]
    assert (np.diff(rows["logits"], axis=1) <= 0).all() and (rows["logits"][:, 0] < rows["log_sum"]).all()
    assert all(len(set(ids)) == 16 for ids in rows["ids"].tolist()) and rows["ids"].max() < head["vocabulary"]
    nats = (rows["log_sum"].astype(float) - rows["logit"]).sum()
    assert abs(nats - saved[1]["nats"]) < 1e-4 * len(rows)
    among = rows["ids"] == rows["token"][:, None]
    assert among.any() and np.array_equal(rows["logits"][among], rows["logit"][among.any(1)])


def test_a_run_against_itself(saved, compare):
    code, found = compare(saved[0], "--dtype", "f32")
    assert code == 0 and found["kept"] == 16 and found["same_best"] == 1.0
    assert found["max_difference"] < 1e-4 and abs(found["divergence"]) < 1e-6  # log sums are kept in fp32
    assert abs(found["saved_perplexity"] / saved[1]["perplexity"] - 1.0) < 1e-5


def test_differences_are_found(saved, compare, tmp_path):
    """Saved ln p that are less by a tenth each: the sums over them are known."""
    head, rows = read(saved[0])
    rows = rows.copy()
    rows["log_sum"] += np.float32(0.1)
    other = tmp_path / "other"
    other.write_bytes(saved[0].read_bytes()[:32] + rows.tobytes())
    _, found = compare(other, "--dtype", "f32")
    assert abs(found["mean_difference"] - 0.1) < 1e-4 and abs(found["max_difference"] - 0.1) < 1e-4
    assert abs(found["saved_perplexity"] / saved[1]["perplexity"] - np.exp(0.1)) < 1e-3
    p = np.exp(rows["logits"].astype(float) - rows["log_sum"][:, None])
    rest, ours = 1 - p.sum(1), 1 - p.sum(1) * np.exp(0.1)
    expected = (p.sum(1) * -0.1 + rest * np.log(rest / ours)).mean()
    assert expected > 1e-4 and abs(found["divergence"] - expected) < 0.02 * expected


def test_another_programs_file(root, saved, compare, tmp_path):
    """bench/peers/transformers_logits.py writes what --save-logits would, from logits that are ours as far as they are saved."""
    spec = importlib.util.spec_from_file_location("transformers_logits", root / "bench/peers/transformers_logits.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    head, rows = read(saved[0])
    given = iter(rows)

    def logits_of(window):
        logits = np.full((len(window), head["vocabulary"]), -40, np.float32)
        for row, out in zip((next(given) for _ in window[1:]), logits):
            rest = np.exp(float(row["log_sum"])) - np.exp(row["logits"].astype(float)).sum()
            out[:] = min(np.log(rest / (head["vocabulary"] - head["kept"])), row["logits"][-1])
            out[row["ids"]] = row["logits"]
        return logits

    tokens = rows["token"].tolist()
    cut, at = [], 0
    while at < len(tokens):  # the first token of a window is not predicted, and not in the file
        cut.append([0] + tokens[at:at + 11])
        at += 11
    assert list(script.windows([7], [1, 2, 3], 3)) == [[7, 1, 2], [7, 3]] and list(script.windows([], [1, 2, 3], 2)) == [[1, 2]]
    script.write(str(tmp_path / "theirs"), cut, 12, 16, logits_of)
    code, found = compare(tmp_path / "theirs", "--dtype", "f32")
    assert code == 0 and found["same_best"] == 1.0 and found["max_difference"] < 1e-3


def test_damaged_files(saved, compare, tmp_path):
    data = saved[0].read_bytes()
    path = tmp_path / "damaged"

    def says(changed, line, code=1):
        path.write_bytes(changed)
        found = compare(path, "--dtype", "f32")
        assert found[0] == code and line in found[1], found

    def with_u32(at, value):
        return data[:at] + int(value).to_bytes(4, "little") + data[at + 4:]

    says(b"", "holds no saved logits")
    says(data[:31], "holds no saved logits")
    says(b"X" + data[1:], "holds no saved logits")
    says(with_u32(8, 2), "version 2")
    for kept in (0, 1025, 0xffffffff):
        says(with_u32(12, kept), f"claims {kept} of")
    says(with_u32(12, 17), "is damaged")
    for vocabulary in (3, 0xffffffff):
        says(with_u32(16, vocabulary), "possible are")
    says(with_u32(16, 50000), "vocabulary of 50000", code=2)
    says(with_u32(20, 13), "--ctx 13", code=2)
    says(with_u32(28, 0xffffffff), "were promised")
    says(data[:-1], "were promised")
    says(data + b"\0", "were promised")
    says(with_u32(32, 0x7fffffff), "token outside")
    says(with_u32(32, 0xffffffff), "token outside")
    says(with_u32(32, 5), "token 5 at prediction 0", code=2)
    says(with_u32(36, 0x7fc00000), "impossible probability")
    says(with_u32(40, 0xff800000), "impossible probability")
    says(with_u32(44, 49152), "an id outside")
    says(with_u32(44 + 64, 0x7f800000), "impossible probability")
    says(with_u32(44 + 68, 0xc61c4000), "not in order")  # -10000, and the next is above it
    says(data[:32] + data[32 + 140:] + data[32:32 + 140], "at prediction 0", code=2)


def test_another_text(saved, compare, tmp_path):
    other = tmp_path / "text"
    other.write_text(TEXT.replace("sun", "cat"))
    code, line = compare(saved[0], file=other)
    assert code == 2 and "compare runs of one text" in line
    code, line = compare(saved[0], ctx=16)
    assert code == 2 and "--ctx is 16" in line
