"""Folders to write in, while other processes remove those of killed runs."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from onnxprune.model import replace
from onnxprune.model.replace import working_folder


@pytest.mark.parametrize("opened", [False, True])
def test_a_folder_that_another_process_removes_before_it_is_locked_is_made_again(
    opened, tmp_path, monkeypatch
):
    made = []
    make, hold = tempfile.mkdtemp, replace.locked

    def mkdtemp(**settings):
        made.append(Path(make(**settings)))
        if len(made) == 1 and not opened:
            shutil.rmtree(made[0])
        return str(made[-1])

    @contextlib.contextmanager
    def locked(folder, *, wait=True):
        with hold(folder, wait=wait) as held:
            if opened and folder == made[0]:
                shutil.rmtree(folder)
            yield held

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    monkeypatch.setattr(replace, "locked", locked)
    with working_folder(tmp_path) as folder:
        assert folder == made[1] and folder.is_dir()
    assert not list(tmp_path.iterdir())
