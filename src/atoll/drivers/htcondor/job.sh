#!/bin/sh
# What HTCondor starts at the execution point, in the job's own folder there. The files came by spool, and those that
# transfer_output_files names go back by it: so each of them must be there at the end, whatever happens. Beside it lie
#   job.env   what jobs.py renders: atoll_walltime atoll_grace atoll_signal atoll_before atoll_inner atoll_place
#             atoll_keep
#   launch    the attempt, in which atoll_place stands for this folder, whose name nobody knew before
# A walltime that was over is told by the exit code 124 together with what then stands in the file `over`.

# Send the signal $1 to the process $2 and to all below it, the lowest first.
atoll_tell() {
    atoll_below=
    read -r atoll_below 2>/dev/null <"/proc/$2/task/$2/children"
    for atoll_each in $atoll_below; do (atoll_tell "$1" "$atoll_each"); done
    kill -s "$1" "$2" 2>/dev/null
}

# A stop that comes before there is anything to stop is not lost.
atoll_asked=
trap 'atoll_asked=1' TERM
umask 077
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH
atoll_folder=$(pwd -P) || exit 125
: >>stdout && : >>stderr && : >>shell && : >>start && : >>end && : >>over && : >>work.tar || exit 125
atoll_fail() {
    printf 'atoll: %s\n' "$1" >>stderr
    exit 125
}
case $atoll_folder in *[!A-Za-z0-9_./+@=-]*) atoll_fail "the folder $atoll_folder has a name that cannot be used" ;; esac
. ./job.env || atoll_fail "the file job.env did not come with the job"
mkdir -p "work/$atoll_inner" scratch checkpoint || atoll_fail "the job's folders cannot be made in $atoll_folder"
for atoll_each in files secrets; do
    [ -f "$atoll_each.tar" ] || continue
    mkdir "$atoll_each" && tar -xf "$atoll_each.tar" -C "$atoll_each" 2>>stderr && rm -f "$atoll_each.tar" ||
        atoll_fail "what came in $atoll_each.tar cannot be unpacked"
done
sed "s|$atoll_place|$atoll_folder|g" launch >launch.new && mv -f launch.new launch ||
    atoll_fail "the file launch cannot be written"
[ -n "${HOME:-}" ] && [ -d "$HOME" ] || HOME=$atoll_folder
export HOME

# An asynchronous list ignores INT; env(1) can undo that where it is new enough. Elsewhere the job cannot use INT.
set -- sh wrapper.sh "$atoll_folder" "${atoll_folder##*/}"
if env --default-signal=INT,QUIT true 2>/dev/null; then
    set -- env --default-signal=INT,QUIT "$@"
fi
"$@" </dev/null 2>>shell &
atoll_job=$!

# Before the walltime the signal that the job asked for, at the walltime TERM, and after its grace KILL.
atoll_guard=
if [ -n "$atoll_walltime" ]; then
    (
        sleep "$((atoll_walltime - atoll_before))"
        [ -z "$atoll_signal" ] || atoll_tell "$atoll_signal" "$atoll_job"
        sleep "$atoll_before"
        [ -s end ] && exit
        echo "$atoll_walltime" >over
        atoll_tell TERM "$atoll_job"
        sleep "$atoll_grace"
        atoll_tell KILL "$atoll_job"
    ) </dev/null >/dev/null 2>&1 &
    atoll_guard=$!
fi

# HTCondor sends TERM to this shell alone.
trap 'atoll_tell TERM "$atoll_job"' TERM
[ -z "$atoll_asked" ] || atoll_tell TERM "$atoll_job"
wait "$atoll_job"
atoll_code=$?
# a signal to this shell ends a wait early
while kill -s 0 "$atoll_job" 2>/dev/null; do
    wait "$atoll_job"
    atoll_code=$?
done
[ -z "$atoll_guard" ] || atoll_tell KILL "$atoll_guard"

while read -r atoll_word atoll_number; do
    case $atoll_word in
    exit) atoll_code=$atoll_number ;;
    signal) atoll_code=$((128 + atoll_number)) ;;
    esac
done <end
rm -rf secrets
[ -z "$atoll_keep" ] || tar -cf work.tar -C work . 2>>shell
[ ! -s over ] || atoll_code=124
exit "$atoll_code"
