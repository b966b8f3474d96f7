"""Digests of code, by which parties see that they run the same."""

import importlib.util

from orchestra_strategy.cluster.code_digest import digest_of_class, digest_of_files


def test_a_changed_line_a_new_file_and_a_new_name_change_it(tmp_path):
    (tmp_path / "room").mkdir()
    first = tmp_path / "room" / "a.py"
    first.write_bytes(b"x = 1\n")
    found = [digest_of_files(tmp_path)]
    first.write_bytes(b"x = 2\n")
    found.append(digest_of_files(tmp_path))
    (tmp_path / "b.py").write_bytes(b"")
    found.append(digest_of_files(tmp_path))
    first.rename(tmp_path / "room" / "c.py")
    found.append(digest_of_files(tmp_path))
    assert len(set(found)) == 4
    (tmp_path / "notes.txt").write_text("no code")
    (tmp_path / "room" / "c.py").write_bytes(b"x = 2\r\n")
    assert digest_of_files(tmp_path) == found[-1]


def test_a_class_has_the_digest_of_its_file(tmp_path):
    found = []
    for number in (1, 2):
        path = tmp_path / f"own_{number}.py"
        path.write_text(f"class Own:\n    x = {number}\n")
        spec = importlib.util.spec_from_file_location(f"own_{number}", path)
        module = importlib.util.module_from_spec(spec)
        import sys

        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found.append(digest_of_class(module.Own))
    assert found[0] != found[1]
    assert digest_of_class(type("Made", (), {"__module__": "builtins"})) == "no source file"
