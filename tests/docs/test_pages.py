"""The convention by which commands of the documentation are found and compared does what CONTRIBUTING says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import commands, matches

PAGE = """# A page

```sh
not run
```

<!-- run -->

```sh
x=1
echo "$x"
```

<!-- exit 3 -->
```console
$ echo two \\
>   words
two words
$ exit 3
```

<!-- file job.yaml -->
```yaml
command: [true]
```

```yaml
only: read
```

<!-- end run -->

```console
$ not run either
```
"""


def page(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "page.md"
    file.write_text(text)
    return file


def test_only_blocks_between_the_marks_are_run(tmp_path: Path) -> None:
    found = commands(page(tmp_path, PAGE))
    assert [command.text for command in found] == [
        'x=1\necho "$x"\n', "echo two \\\n  words", "exit 3", "command: [true]\n",
    ]  # fmt: skip
    assert [command.exit_code for command in found] == [0, 0, 3, 0]
    assert [command.expected for command in found] == [None, "two words", None, None]
    assert found[3].writes == "job.yaml"


def test_a_command_is_named_by_its_line(tmp_path: Path) -> None:
    lines = PAGE.splitlines()
    for command in commands(page(tmp_path, PAGE)):
        assert command.text.splitlines()[0] in lines[command.line - 1]


@pytest.mark.parametrize("text", ["<!-- end run -->\n", "<!-- run -->\n", "<!-- exit 1 -->\n"])
def test_a_mark_that_is_out_of_place_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="page"):
        commands(page(tmp_path, text))


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("job 12 runs", "job 7 runs\n"),
        ("ID  NAME", " ID     NAME\n"),
        ("took ... s", "took 1.5 s\n"),
        ("first\n...\nlast", "first\nsecond\nthird\nlast\n"),
        ("...\nlast", "last\n"),
        ("a (b) [c] *", "a (b) [c] *\n\n"),
    ],
)
def test_what_is_printed_may_differ_in_numbers_blanks_and_ellipses(expected: str, printed: str) -> None:
    assert matches(expected, printed)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("job 12 runs", "job 12 waits\n"),
        ("first", "first\nsecond\n"),
        ("first\nsecond", "first\n"),
        ("...\nlast", "last\nfirst\n"),
        ("done", ""),
    ],
)
def test_other_words_or_lines_are_told_apart(expected: str, printed: str) -> None:
    assert not matches(expected, printed)
