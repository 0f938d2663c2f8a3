"""What is run at the site: a few lines of POSIX sh for each thing that is done for an account, whole batches at once.

Each script begins in ROOT, the account's folder of this platform, and runs with the account's rights. Words that
differ come as arguments or on stdin, never in the text.
"""

ABOUT = 'printf "%s\\n" "$HOME" "$(id -un)" "${SHELL:-/bin/sh}" "$(id -u)" "$(id -g)"'
"""Tells the account's home, name, shell and numbers."""

BUNDLE = r"""
[ -f "$1/config.json" ] || [ ! -e "$1/config.json" ] || { echo "$1/config.json is no file" >&2; exit 1; }
head -c 1000000 -- "$1/config.json" || exit 1
"""
"""Argument a bundle: its description."""

BUNDLE_ROOT = r"""
cd -- "$1" || exit 1
for name in hosts resolv.conf; do
    [ ! -f "etc/$name" ] || echo "$name"
done
"""
"""Argument a root file system: which files it has that name resolution reads."""

SUBMIT = r"""
root=$1 token=$2
umask 077
fail() { echo "$1" >&2; exit 74; }
mkdir -p -- "$root" && cd -- "$root" || fail "the folder $root cannot be made"
[ -O . ] || fail "the folder $root belongs to somebody else"
mkdir -p attempts batches checkpoints incoming || fail "no folder can be made in $root"
new=incoming/$token
mkdir "$new" || exit 74
trap 'rm -rf "$root/$new"' EXIT
tar -x -f - -C "$new" || fail "the attempts' files cannot be written in $root"
keeper=$root/$(cd "$new" && echo keeper-*.sh) wrapper=$root/$(cd "$new" && echo wrapper-*.sh)
for file in "$new"/*.sh; do
    [ -e "${file##*/}" ] || mv -f -- "$file" . || exit 74
done
(cd "$new/checkpoints" && ls) | (cd checkpoints && xargs -r mkdir -p --) || fail "no folder can be made in $root"
for path in "$new"/batches/*; do
    batch=${path##*/} known=
    for id in $(cat "$path/list"); do
        [ -d "attempts/$id" ] || continue
        known=1 job=- about=
        read -r of index about 2>/dev/null <"attempts/$id/about" || of=- index=-
        read -r job 2>/dev/null <"batches/$of/job" || job=-
        form=
        [ ! -e "batches/$of/single" ] || form=' single'
        echo "known $id $of $index $job$form"
    done
    if [ -n "$known" ]; then
        echo "mixed $batch"
        continue
    fi
    [ ! -e "batches/$batch" ] || rm -rf "batches/$batch"
    mv -- "$path" batches/ || exit 74
    (cd "$new/attempts" && mv -- $(cat "$root/batches/$batch/list") "$root/attempts/") || exit 74
    . "./batches/$batch/options"
    if job=$(sbatch --parsable "$@" "$keeper" "$root" "$batch" "$wrapper" 2>"batches/$batch/said" </dev/null); then
        job=${job%%;*}
        echo "$job" >"batches/$batch/job"
        echo "job $batch $job"
    else
        echo "failed $batch $? $(tail -c 2000 "batches/$batch/said" | tr '\n\r' '\t\t')"
    fi
done
"""
"""Arguments ROOT TOKEN; stdin the tar stream of layout.py. Lays a whole submission out and hands it to sbatch.

Says for each batch `job BATCH JOB` or `failed BATCH CODE WORDS`; or `mixed BATCH`, with `known ID BATCH INDEX JOB` for
each attempt that was laid out before (`-` for what nobody wrote down), and then nothing of that batch was submitted.
"""

OPENINGS = r"""
set -f
export TZ=UTC SLURM_TIME_FORMAT=%s
while read -r options; do
    said=$(timeout 3 sbatch --test-only --job-name=atoll-test --no-requeue --export=ALL --chdir=/ --input=/dev/null \
        --output=/dev/null $options --wrap=: 2>&1 </dev/null)
    code=$?
    echo "$code $(printf %s "$said" | tail -c 2000 | tr '\n\r' '\t\t')"
    [ "$code" -ne 124 ] || break
done
cat >/dev/null
"""
"""Stdin the options of jobs, one a line: `CODE WORDS` for each, as Slurm plans it and takes none.

Times are seconds since 1970 in any zone. After the first that Slurm does not answer in time none is asked any more.
"""

AGAIN = r"""
cd -- "$1/attempts" || exit 74
while read -r id; do
    # a job that lands after all finds it claimed; a look alone would leave it time to begin after that
    ln -sT . "$id/claim" 2>/dev/null
    [ -h "$id/claim" ] || continue
    rm -f -- "$id/launch" # before the claim, which might go first otherwise
    mv -- "$id" "../incoming/$id.$$" && rm -rf -- "../incoming/$id.$$"
done
"""
"""Argument ROOT; stdin attempts that the engine never got, one a line: takes away the folders of those not begun."""

RECORDS = r"""
cd -- "$1/attempts" 2>/dev/null || exit 0
set -- $(cat)
[ "$#" -gt 0 ] || exit 0
names='-name start -o -name end -o -name stop -o -name usage -o -name about'
find "$@" -maxdepth 1 \( -type d \( -name claim -o -name '?????-????????????????' \) -printf 'd %T@ 0 %p\n' \) -o \
    \( -type l -name claim -printf 'l %T@ 0 %p\n' \) -o \
    -type f -size -9 \( $names \) -printf 'f %T@ %s %p\n' 2>/dev/null
echo
find "$@" -maxdepth 1 -type f -size -9 \( $names \) -print0 2>/dev/null |
    xargs -0 -r awk '{ print FILENAME ":" $0 }' /dev/null
"""
"""Argument ROOT; stdin attempts: names, times and sizes of what was written of them, an empty line, the contents."""

LISTS = r"""
cd -- "$1/batches" 2>/dev/null || exit 0
for batch in $(cat); do
    [ -f "$batch/list" ] && [ ! -L "$batch/list" ] && echo "batch $batch" && head -c 4000000 "$batch/list" && echo
done
:
"""
"""Argument ROOT; stdin batches: the attempts of each."""

NEWS = r"""
cd -- "$1" 2>/dev/null || exit 74
[ "$(wc -c <news 2>/dev/null || echo 0)" -lt 1000000 ] || : >news
: >>news || exit 74
exec timeout 600 tail -n 0 -s 1 -F -- news 2>/dev/null
"""
"""Argument ROOT: tells of attempts that begin or end from now on, one a line, as their keepers write it down."""
NEWS_OVER = 124
"""The code with which NEWS ends after 10 minutes, lest it goes on for ever where nobody can end it any more."""

STOP = r"""
cd -- "$1/attempts" 2>/dev/null || exit 0
# at once, where scancel would try for half a minute; no word of it, and scancel may find out
case $(scontrol ping 2>/dev/null) in
    *" is UP"*) ;;
    *" is DOWN"*) echo "Unable to contact slurm controller (connect failure)" >&2; exit 75 ;;
esac
now=$(date +%s)
signal= cancel= step=
while read -r id reason grace native; do
    [ -d "$id" ] || continue
    [ ! -e "$id/end" ] || continue
    if [ "$reason" = recalled ]; then
        # whoever claims it decides: with our claim in its place the wrapper ends without the command
        ln -sT . "$id/claim" 2>/dev/null
        [ -h "$id/claim" ] || continue
    else
        old=
        read -r old 2>/dev/null <"$id/grace"
        [ -n "$old" ] && [ "$old" -le "$grace" ] || echo "$grace" >"$id/grace"
        (set -C; echo "$reason $now" >"$id/stop") 2>/dev/null
    fi
    if [ "$native" = - ]; then
        batch= index= job=
        read -r batch index about 2>/dev/null <"$id/about"
        read -r job 2>/dev/null <"../batches/$batch/job" || continue
        native=$job
        [ -e "../batches/$batch/single" ] || native=${job}_$index
    fi
    why= since=
    read -r why since 2>/dev/null <"$id/stop"
    read -r grace 2>/dev/null <"$id/grace"
    # a signal is for those that run: for a task that waits scancel would try again and again, and then hit them all
    if [ ! -e "$id/start" ]; then
        cancel="$cancel $native"
    elif [ -n "$since" ] && [ "$((now - since))" -gt "$((grace / 1000 + 20))" ]; then
        # the grace is long over: the one that was to see to it is not there
        cancel="$cancel $native"
    elif [ -e "$id/step" ]; then
        step="$step $native"
    else
        signal="$signal $native"
    fi
done
[ -z "$signal" ] || scancel --quiet --full --signal=TERM $signal
# srun takes TERM for KILL: so TERM goes to what srun started alone, and the keeper gets one that means nothing else
[ -z "$step" ] || scancel --quiet --full --signal=URG $step
[ -z "$step" ] || scancel --quiet --signal=TERM $step
[ -z "$cancel" ] || scancel --quiet $cancel
"""
"""Argument ROOT; stdin lines ID REASON MILLISECONDS NATIVE (`-` where nobody knows): begins to stop attempts.

The reason and the grace are written first, so that a job which starts at this moment sees them; the keeper at the node
holds the grace. One that has not begun is cancelled. One that is recalled is first claimed, by a link in the place of
the wrapper's claim: so it has begun and is left alone, or it never begins, whatever Slurm does at this moment.
"""

SIGNAL = r"""
full=--full
[ ! -e "$1/attempts/$2/step" ] || full=
scancel $full "--signal=$3" "$4"
"""
"""Arguments ROOT ID SIGNAL NATIVE: sends a signal to the processes of a running attempt."""

FORGET = r"""
cd -- "$1/attempts" 2>/dev/null || exit 0
ids=$(cat)
batches=
for id in $ids; do
    batch=
    read -r batch about 2>/dev/null <"$id/about" || continue
    case " $batches " in *" $batch "*) ;; *) batches="$batches $batch" ;; esac
done
rm -rf -- $ids 2>/dev/null
for id in $ids; do
    [ -e "$id" ] || continue
    chmod -R u+rwX -- "$id"
    rm -rf -- "$id"
done
for batch in $batches; do
    case $batch in */* | .*) continue ;; esac
    left=
    for id in $(cat "../batches/$batch/list" 2>/dev/null); do
        [ ! -d "$id" ] || { left=1; break; }
    done
    [ -n "$left" ] || rm -rf -- "../batches/$batch"
done
:
"""
"""Argument ROOT; stdin attempts: removes their folders, and the batches that have none left."""

LOG = r"""
cd -- "$1/attempts" 2>/dev/null || cd /
while read -r id stream start most; do
    [ -d "$id" ] || { echo "$2 missing"; continue; }
    if [ ! -s "$id/$stream" ] || [ ! -f "$id/$stream" ] || [ -L "$id/$stream" ]; then
        echo "$2 0 0 0"
        continue
    fi
    size=$(wc -c <"$id/$stream") || { echo "$2 failed"; continue; }
    [ "$start" -ge 0 ] || start=$((size + start))
    [ "$start" -ge 0 ] || start=0
    [ "$start" -le "$size" ] || start=$size
    length=$((size - start))
    [ "$length" -le "$most" ] || length=$most
    echo "$2 $size $start $length"
    if [ "$start" -eq 0 ]; then
        head -c "$length" "$id/$stream"
    elif [ "$length" -gt 0 ]; then
        tail -c "+$((start + 1))" "$id/$stream" | head -c "$length"
    fi
done
:
"""
"""Arguments ROOT TOKEN; stdin lines ID STREAM OFFSET LIMIT.

Says for each a line TOKEN SIZE START LENGTH, with the bytes behind it, or TOKEN and `missing` or `failed`.
"""

WORKDIR = r"""
cd -- "$1/attempts/$2" 2>/dev/null || exit 3
workdir=work
[ ! -f workdir ] || [ -L workdir ] || workdir=$(cat workdir && echo .) && workdir=${workdir%.}
cd -P -- "$workdir" 2>/dev/null || exit 0
"""
"""Goes to an attempt's working directory; arguments ROOT ID. Exit code 3 where there is no such attempt."""

LIST_FILES = f"""{WORKDIR}
find . -maxdepth 64 \\( -type f -printf 'f %P\\0' \\) -o \\( -type l -printf 'l %P\\0' \\) 2>/dev/null
"""
"""The plain files and links in the working directory, each with a NUL behind it."""

TAKE_FILES = (
    WORKDIR
    + r"""
here=$(pwd -P)
tr '\0' '\n' | while IFS= read -r path; do
    case $path in
        f*) printf './%s\0' "${path#f }" ;;
        l*)
            real=$(readlink -f -- "./${path#l }") || continue
            case $real in "${here%/}"/*) [ ! -f "$real" ] || printf './%s\0' "${path#l }" ;; esac
            ;;
    esac
done |
    tar -c -f - --dereference --hard-dereference --no-recursion --ignore-failed-read --null --files-from=- 2>/dev/null
:
"""
)
"""stdin what LIST_FILES said: a tar stream of the files, and of the links to files inside the working directory."""

ENTER = r"""
cd -- "$1" || exit 126
atoll_folder=$1
shift
exec 8>&1 9>&2
atoll_workdir=$atoll_folder
atoll_go_in() { exec "$@"; }
atoll_enter() { . ./launch; }
atoll_enter
exec 1>&8 2>&9 3>&- 8>&- 9>&-
[ -t 1 ] || exec 2>&1
cd -- "$atoll_workdir" || exit 126
unset OLDPWD
atoll_go_in "$@"
"""
"""Arguments FOLDER WORD...: runs a command at the node in the environment and working directory of the attempt.

In its image too, where `launch` says how to get there.
"""
