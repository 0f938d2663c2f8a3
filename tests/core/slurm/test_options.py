"""sbatch's options are read as sbatch reads them, and each has a fate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.core.slurm.options import OPTIONS, Takes, Treatment, parse_directive, parse_words, split_directive
from tests.support.tried import tried

# The long options of sbatch(1), 22.05 and 25.05 together.
MAN_PAGE = """
account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment consolidate-segments
constraint container container-id contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task
deadline delay-boot dependency distribution error exclude exclusive export export-file extra extra-node-info
get-user-env gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags help hint hold
ignore-pbs input job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu
mem-per-gpu mem-update mincpus network nice no-kill no-requeue nodefile nodelist nodes ntasks ntasks-per-core
ntasks-per-gpu ntasks-per-node ntasks-per-socket oom-kill-step open-mode output overcommit oversubscribe parsable
partition power prefer priority profile propagate qos quiet reboot requeue reservation resources resv-ports runtime
segment signal sockets-per-node spread-job spread-segments stepmgr switches test-only thread-spec threads-per-core
time time-min tmp tres-bind tres-per-task uid usage use-min-nodes verbose version wait wait-all-nodes wckey wrap
"""
SHORT = set("ABCDFGHJLMNOQSVWabcdehikmnopqstvwx")


def read(text: str) -> list[tuple[str, str | None]]:
    return [(given.name, given.value) for given in parse_directive(text, "#SBATCH line 2")]


def test_every_option_of_the_manual_has_a_fate() -> None:
    assert set(MAN_PAGE.split()) <= {option.name for option in OPTIONS}
    assert {option.short for option in OPTIONS} - {""} == SHORT
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)


def test_every_refusal_says_what_to_do() -> None:
    for option in OPTIONS:
        if option.treatment is Treatment.REFUSED:
            assert any(word in option.note for word in ("remove", "write", "use", "call", "ask", "begin", "belongs")), (
                option.name
            )


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (" --mem=4G", [("mem", "4G")]),
        (" --mem 4G", [("mem", "4G")]),
        (" -n4", [("ntasks", "4")]),
        (" -n 4", [("ntasks", "4")]),
        (" -n=4", [("ntasks", "=4")]),  # getopt gives it so; the value is then refused
        (" -N2 -n 8\t--time=1:00 ", [("nodes", "2"), ("ntasks", "8"), ("time", "1:00")]),
        (" -HW -J a", [("hold", None), ("wait", None), ("job-name", "a")]),
        (" -HJa", [("hold", None), ("job-name", "a")]),
        (' --comment="two words" # said', [("comment", "two words")]),
        (" --comment='a \"b\" c'", [("comment", 'a "b" c')]),
        (r" --comment=a\ b\"c\#d", [("comment", 'a b"c#d')]),
        (" --job-name=a#b", [("job-name", "a")]),
        (" --comment=''", [("comment", "")]),
        (" --nice --hold", [("nice", None), ("hold", None)]),
        (" --nice=5", [("nice", "5")]),
        (" --requeue", [("requeue", None)]),
        (" -k", [("no-kill", None)]),
        (" -koff", [("no-kill", "off")]),
        (" --tasks-per-node=2", [("ntasks-per-node", "2")]),
        (" --job=a --part b", [("job-name", "a"), ("partition", "b")]),
        (" --mem=1 --", [("mem", "1")]),
        ("--hold", [("hold", None)]),
        ("", []),
        ("  # nothing", []),
    ],
)
def test_a_directive_is_read_as_sbatch_does(text: str, options: list[tuple[str, str | None]]) -> None:
    assert read(text) == options


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("--memory=4G", "--memory", "Did you mean --mem?"),
        ("--cpus_per_task=4", "--cpus_per_task", "Did you mean --cpus-per-task?"),
        ("--zzzzzz", "--zzzzzz", "no such option. See: man sbatch"),
        ("--cpus=4", "--cpus", "--cpus-per-gpu or --cpus-per-task"),
        ("--mem", "--mem", "needs a value on the same line"),
        ("-n", "-n", "needs a value"),
        ("-Z", "-Z", "no such option"),
        ("--hold=yes", "--hold", "takes no value"),
        ("mem=4G", "mem=4G", "It is no option"),
        ("--mem=4G extra", "extra", "It is no option"),
        ("\u2014mem=4G", "\u2014mem=4G", "type them anew: --mem=4G"),
        ("--comment='a b", "--comment='a b", "The quote ' is not closed"),
        ("hetjob", "hetjob", "several different parts"),
        (": --mem=1", ":", "several different parts"),
        ("-", "-", "It is no option"),
    ],
)
def test_a_wrong_directive_is_named_with_its_line(text: str, field: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(text)
    assert caught.value.field == f"#SBATCH line 2: {field}"
    assert said in caught.value.sentence
    assert caught.value.errors[0][0] == caught.value.field


def test_on_the_command_line_options_end_at_the_first_word() -> None:
    given, rest = parse_words(["-n", "4", "--hold", "job.sh", "--mem=4"], "command line")
    assert [option.name for option in given] == ["ntasks", "hold"]
    assert rest == ["job.sh", "--mem=4"]
    assert parse_words(["--hold", "--", "-x"], "command line")[1] == ["-x"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), max_size=4))
def test_quoted_words_come_out_as_they_were(words: list[str]) -> None:
    def quote(word: str) -> str:
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert split_directive(" ".join(map(quote, words)), "here") == words


@given(st.text(alphabet="-=nmeN4G hold'\"\\#:\u2014", max_size=20))
def test_any_text_is_options_or_invalid(text: str) -> None:
    found = tried(lambda: parse_directive(text, "#SBATCH line 2"), Invalid)
    if isinstance(found, Invalid):
        assert found.field is not None
        assert found.field.startswith("#SBATCH line 2: ")
    else:
        assert all(option.value is not None or option.option.takes is not Takes.VALUE for option in found)
