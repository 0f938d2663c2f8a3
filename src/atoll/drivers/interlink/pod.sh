# The body of what a pod runs, by any POSIX sh. Before it stands what script.py renders for the attempt: the variables
#   atoll_id atoll_base atoll_checkpoints atoll_checkpoint atoll_inner atoll_walltime atoll_grace atoll_signal
#   atoll_before atoll_wrapper atoll_launch atoll_script atoll_mounted
# No folder is shared with the platform: all is laid out here, and removed at the end.

atoll_fail() {
    printf 'atoll: %s\n' "$1" >&2
    exit 125
}

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
atoll_folder=$atoll_base/atoll-$atoll_id
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH
# This mkdir is the claim: where an engine starts the same pod twice on a node, the second one must not run it again.
mkdir "$atoll_folder" || atoll_fail "the folder $atoll_folder cannot be made: the pod runs here already, or may not write"
cd "$atoll_folder" || atoll_fail "the folder $atoll_folder cannot be entered"
mkdir work scratch checkpoint || atoll_fail "the folder $atoll_folder cannot be written"
[ -z "$atoll_inner" ] || mkdir -p "work/$atoll_inner" || atoll_fail "the working directory $atoll_inner cannot be made"
if [ -n "$atoll_checkpoints" ]; then
    mkdir -p "$atoll_checkpoints/$atoll_checkpoint" ||
        atoll_fail "the checkpoint folder $atoll_checkpoints/$atoll_checkpoint cannot be made"
fi
printf '%s' "$atoll_wrapper" >wrapper.sh && printf '%s' "$atoll_launch" >launch ||
    atoll_fail "the folder $atoll_folder cannot be written"
[ -z "$atoll_script" ] || printf '%s' "$atoll_script" >script || atoll_fail "the folder $atoll_folder cannot be written"
if [ -n "$atoll_mounted" ]; then
    # what is mounted may not be removed, and the wrapper removes what it has read
    mkdir secrets && cp -L "$atoll_mounted"/* secrets/ && chmod -R u+w secrets ||
        atoll_fail "the job's secrets did not come with the pod"
fi
[ -n "${HOME:-}" ] && [ -d "$HOME" ] || HOME=$atoll_folder
export HOME
unset atoll_wrapper atoll_launch atoll_script

# Some plugins put words of their own before the job's output: it begins after this line.
printf 'atoll: output of %s begins\n' "$atoll_id"

# An asynchronous list ignores INT, and a shell cannot undo that: env(1) can where it is new enough. Where it cannot, the
# job runs in the foreground, and a TERM that only this shell gets does not reach it.
atoll_native=${SLURM_JOB_ID:-${HOSTNAME:-$$}}
if env --default-signal=INT,QUIT true 2>/dev/null; then
    env --default-signal=INT,QUIT sh wrapper.sh "$atoll_folder" "$atoll_native" </dev/null &
    atoll_job=$!
else
    atoll_job=
fi

# Before the walltime the signal that the job asked for, at the walltime TERM, and after its grace KILL.
atoll_guard=
if [ -n "$atoll_walltime" ]; then
    (
        sleep "$((atoll_walltime - atoll_before))"
        [ -n "$atoll_job" ] || read -r atoll_job _ <start
        [ -z "$atoll_signal" ] || atoll_tell "$atoll_signal" "$atoll_job"
        sleep "$atoll_before"
        [ -s end ] && exit
        : >over
        atoll_tell TERM "$atoll_job"
        sleep "$atoll_grace"
        atoll_tell KILL "$atoll_job"
    ) </dev/null >/dev/null 2>&1 &
    atoll_guard=$!
fi

if [ -n "$atoll_job" ]; then
    trap 'atoll_tell TERM "$atoll_job"' TERM
    [ -z "$atoll_asked" ] || atoll_tell TERM "$atoll_job"
    wait "$atoll_job"
    atoll_code=$?
    # a signal to this shell ends a wait early
    while kill -s 0 "$atoll_job" 2>/dev/null; do
        wait "$atoll_job"
        atoll_code=$?
    done
else
    sh wrapper.sh "$atoll_folder" "$atoll_native" </dev/null
    atoll_code=$?
fi
[ -z "$atoll_guard" ] || atoll_tell KILL "$atoll_guard"

# What the wrapper wrote counts: a wait that was cut short tells the signal instead.
while read -r atoll_word atoll_number; do
    case $atoll_word in
    exit) atoll_code=$atoll_number ;;
    signal) atoll_code=$((128 + atoll_number)) ;;
    esac
done 2>/dev/null <end
if [ -e over ]; then
    printf '\natoll: %s was ended because its walltime of %s seconds was over\n' "$atoll_id" "$atoll_walltime"
    atoll_code=124
fi
cd /
rm -rf "$atoll_folder" 2>/dev/null
exit "$atoll_code"
