"""Files of weights: what is read, and that nothing in them is ever executed."""

import os
import pickle

import pytest
import torch

from mirage.checkpoint import read_weights


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (str(self.place),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    bomb = Bomb()
    Bomb.place = tmp_path / "executed"
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": bomb}))
    torch.save({"a": torch.zeros(1), "b": bomb}, tmp_path / "zip.pth")
    for file in ("plain.pth", "zip.pth"):
        with pytest.raises(ValueError, match=rf"nothing but tensors, but .*{file} holds more .* it may run code"):
            read_weights(tmp_path / file)
    assert not Bomb.place.exists()


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w}, lambda w: {"generator": {"vace": w}}])
def test_older_files_are_read_without_their_wrappers(tmp_path, wrap):
    weights = {"a.weight": torch.arange(6.0).view(2, 3), "b.bias": torch.ones(1, dtype=torch.bfloat16)}
    torch.save(wrap(weights), tmp_path / "model.pth")
    torch.save(wrap(weights), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for file in ("model.pth", "old.pth"):
        read = read_weights(tmp_path / file)
        assert read.keys() == weights.keys() and all(torch.equal(read[key], weights[key]) for key in weights)


def test_damaged_and_absent_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="holds none"):
        read_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10" * 40)
    with pytest.raises(ValueError, match="intact"):
        read_weights(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="there is no"):
        read_weights(tmp_path / "absent.safetensors")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-900])
    (tmp_path / "list.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "numbers.bin")
    for file in ("cut.pth", "list.pt", "numbers.bin", "model.txt"):
        (tmp_path / "model.txt").touch()
        with pytest.raises(ValueError, match=file):
            read_weights(tmp_path / file)
