#!/bin/sh
# What sbatch starts:  keeper.sh ROOT BATCH WRAPPER
#
# Runs one attempt of the batch through the wrapper, and holds it to its limits on the spot: the walltime to the second,
# a signal before it, the grace of a stop, one memory limit for all its processes. So they hold while the platform is
# away, and whatever the cluster's own habits are. Nothing that the attempt started outlives it.
#
# In the attempt's folder stand, besides what the wrapper wants:
#   step    where srun starts the command: signals then go to what it started, since srun takes most for a KILL
#   about   one line: BATCH INDEX WALLTIME SIGNAL BEFORE GRACE KEY NODES   ("-" for what there is not)
#   stop    why it is to end: written once, by whoever stops it; here by the clock ("timed_out")
#   grace   milliseconds that it has from then on
# and here is written:
#   ../../news   a line with the attempt's id when it began, and when its command ended of its own accord: hints only
#   usage   "OOM PEAK": processes that the kernel killed for memory, and the most bytes that were in use
#
# Plain POSIX sh. What is read from /proc and /sys is Linux's; without it Slurm alone ends what is left.

atoll_root=$1 atoll_wrapper=$3
atoll_native=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    atoll_native=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
fi
atoll_id=$(sed -n "$((${SLURM_ARRAY_TASK_ID:-0} + 1)){p;q;}" "$atoll_root/batches/$2/list") && [ -n "$atoll_id" ] || {
    echo "atoll: $atoll_root/batches/$2/list cannot be read on ${SLURMD_NODENAME:-this node}" >&2
    exit 125
}
# The platform's arrays are not the engine's: a job counts by ATOLL_*, or by the SLURM_* that it asked for.
unset SLURM_ARRAY_TASK_ID SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_COUNT SLURM_ARRAY_TASK_MAX SLURM_ARRAY_TASK_MIN \
    SLURM_ARRAY_TASK_STEP
atoll_folder=$atoll_root/attempts/$atoll_id
read -r atoll_batch atoll_index atoll_walltime atoll_signal atoll_before atoll_grace atoll_key atoll_nodes \
    <"$atoll_folder/about" || {
    echo "atoll: $atoll_folder cannot be read on ${SLURMD_NODENAME:-this node}" >&2
    exit 125
}

# The control group that Slurm made for this step, where it made one: who is in it, and what memory it took.
atoll_group='' atoll_job='' atoll_events='' atoll_peak_file='' atoll_limit_file=''
while IFS=: read -r atoll_number atoll_controllers atoll_path; do
    case "$atoll_path/" in */job_"$SLURM_JOB_ID"/*) ;; *) continue ;; esac
    case ",$atoll_controllers," in
        *,memory,*)
            atoll_group=/sys/fs/cgroup/memory$atoll_path
            atoll_events=$atoll_group/memory.oom_control atoll_peak_file=$atoll_group/memory.max_usage_in_bytes
            break
            ;;
        ,,)
            atoll_group=/sys/fs/cgroup$atoll_path
            atoll_events=$atoll_group/memory.events atoll_peak_file=$atoll_group/memory.peak
            ;;
    esac
done 2>/dev/null </proc/self/cgroup
[ -r "$atoll_group/cgroup.procs" ] || atoll_group=''
if [ -n "$atoll_group" ] && [ -e "$atoll_folder/step" ]; then
    # the command's memory is counted in another step's group: what all steps have in common is the job's
    atoll_job=${atoll_group%"/job_$SLURM_JOB_ID/"*}/job_$SLURM_JOB_ID
    atoll_events=$atoll_job/${atoll_events##*/} atoll_peak_file=$atoll_job/${atoll_peak_file##*/}
    [ ! -r "$atoll_job/memory.limit_in_bytes" ] || atoll_limit_file=$atoll_job/memory.limit_in_bytes
fi

# Sets atoll_others: all processes of the attempt but those named. Those of other steps too, below which a runtime of
# containers makes groups of its own.
atoll_find() {
    atoll_others=''
    if [ -n "$atoll_group" ]; then
        for atoll_place in "$atoll_group" ${atoll_job:+"$atoll_job"/step_[0-9]*/task_* \
            "$atoll_job"/step_[0-9]*/task_*/* "$atoll_job"/step_[0-9]*/user/task_* \
            "$atoll_job"/step_[0-9]*/user/task_*/*}; do
            while read -r atoll_process; do
                case " $* " in *" $atoll_process "*) ;; *) atoll_others="$atoll_others $atoll_process" ;; esac
            done <"$atoll_place/cgroup.procs"
        done
        return
    fi
    atoll_waiting=$$
    while [ -n "$atoll_waiting" ]; do
        atoll_next=''
        for atoll_parent in $atoll_waiting; do
            for atoll_file in /proc/"$atoll_parent"/task/*/children; do
                atoll_children=''
                read -r atoll_children <"$atoll_file"
                atoll_next="$atoll_next $atoll_children"
            done
        done
        for atoll_process in $atoll_next; do
            case " $* " in *" $atoll_process "*) ;; *) atoll_others="$atoll_others $atoll_process" ;; esac
        done
        atoll_waiting=${atoll_next# }
        case $atoll_waiting in *[0-9]*) ;; *) atoll_waiting='' ;; esac
    done
} 2>/dev/null

# Kill all but those named, those too that appear meanwhile.
atoll_kill() {
    atoll_rounds=0
    while [ "$atoll_rounds" -lt 300 ]; do
        atoll_find "$@"
        case $atoll_others in *[0-9]*) ;; *) return ;; esac
        # shellcheck disable=SC2086  # a list of process ids
        kill -9 $atoll_others
        # else it is found again until it was waited for
        [ -z "$atoll_watcher" ] || wait "$atoll_watcher"
        atoll_rounds=$((atoll_rounds + 1))
        # the dead need a moment to go
        [ "$atoll_rounds" -lt 3 ] || sleep 0.1
    done
} 2>/dev/null

# Kill the attempt but not the wrapper, which writes its end down; and that too where it does not.
atoll_destroy() {
    read -r atoll_me atoll_rest </proc/self/stat
    if [ -e "$atoll_folder/step" ]; then
        # srun kills what it started, and waits for its end
        atoll_find "$$" "$atoll_me"
        # shellcheck disable=SC2086
        kill -s TERM $atoll_others
        atoll_rounds=0
        while [ ! -e "$atoll_folder/end" ] && [ "$atoll_rounds" -lt 15 ]; do
            sleep 1
            atoll_rounds=$((atoll_rounds + 1))
        done
    fi
    atoll_writer=''
    read -r atoll_writer atoll_rest <"$atoll_folder/start"
    atoll_kill "$$" "$atoll_me" "$atoll_writer"
    sleep 5
    atoll_kill "$$" "$atoll_me"
} 2>/dev/null

atoll_tell() {
    if [ -e "$atoll_folder/step" ]; then
        scancel --quiet --signal="$1" "$SLURM_JOB_ID"
        return
    fi
    read -r atoll_me atoll_rest </proc/self/stat
    atoll_find "$$" "$atoll_me"
    # shellcheck disable=SC2086
    kill -s "$1" $atoll_others
} 2>/dev/null

# Sets atoll_kills: how many processes the kernel has killed here for memory. The older control groups count for
# themselves alone.
atoll_count() {
    atoll_kills=0
    for atoll_place in "$atoll_events" \
        ${atoll_limit_file:+"$atoll_job"/step_[0-9]*/task_*/"${atoll_events##*/}" \
            "$atoll_job"/step_[0-9]*/task_*/*/"${atoll_events##*/}"}; do
        while read -r atoll_name atoll_number; do
            [ "$atoll_name" != oom_kill ] || atoll_kills=$((atoll_kills + atoll_number))
        done <"$atoll_place"
    done
} 2>/dev/null

# Sleep for so many milliseconds.
atoll_pause() {
    atoll_fraction=00$(($1 % 1000))
    sleep "$(($1 / 1000)).${atoll_fraction#"${atoll_fraction%???}"}"
}

# A stop came: what is left when its grace is over is killed. One without `stop` is Slurm's own, which kills by itself.
atoll_asked() {
    [ -e "$atoll_folder/stop" ] || return
    atoll_wait_for=${atoll_grace}000
    read -r atoll_wait_for <"$atoll_folder/grace" || :
    { trap '' TERM; atoll_pause "$atoll_wait_for"; atoll_destroy; } &
}

atoll_clock() {
    trap '' TERM
    atoll_left=$atoll_walltime
    if [ "$atoll_signal" != - ]; then
        if [ "$atoll_before" -lt "$atoll_walltime" ]; then
            sleep "$((atoll_walltime - atoll_before))"
            atoll_left=$atoll_before
        fi
        atoll_tell "$atoll_signal"
    fi
    sleep "$atoll_left"
    echo "${atoll_grace}000" >"$atoll_folder/grace"
    (set -C; echo timed_out >"$atoll_folder/stop") 2>/dev/null
    atoll_tell TERM
    exec sleep 2147483647
}

# One process that is killed for memory leaves the others without it: the attempt ends as a whole.
atoll_memory() {
    trap '' TERM
    while sleep 3; do
        atoll_count
        [ "$atoll_kills" -eq 0 ] || atoll_destroy
    done
}

atoll_watch() {
    trap '' HUP INT QUIT USR1 USR2 ALRM
    trap atoll_asked TERM URG
    [ ! -r "$atoll_events" ] || atoll_memory &
    [ ! -e "$atoll_folder/stop" ] || atoll_asked
    # one of them lasts, for `wait` to wait for
    if [ "$atoll_walltime" = - ]; then
        { trap '' TERM; exec sleep 2147483647; } &
    else
        atoll_clock &
    fi
    while :; do wait; done
}

trap '' HUP INT QUIT USR1 USR2 ALRM TERM
[ ! -e "$atoll_folder/stop" ] || exit 143
# made when the job was handed over; empty ones may have been taken away since
[ -d "$atoll_root/checkpoints/$atoll_key" ] ||
    PATH=/usr/bin:/bin mkdir -p "$atoll_root/checkpoints/$atoll_key" || exit 125
export ATOLL_NODE_RANK=0 ATOLL_NODES="$atoll_nodes" ATOLL_MASTER_ADDR=127.0.0.1
if [ "$atoll_nodes" != 1 ]; then
    atoll_address=$(scontrol show node -o "$SLURMD_NODENAME" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
    ATOLL_MASTER_ADDR=${atoll_address:-$SLURMD_NODENAME}
fi
atoll_watcher=''
atoll_watch </dev/null >/dev/null 2>&1 &
atoll_watcher=$!

# In the foreground, and behind traps that its own processes do not inherit: the wrapper finds signals as they should be.
atoll_termed=''
trap : HUP INT QUIT USR1 USR2 ALRM
trap 'atoll_termed=1' TERM
/bin/sh "$atoll_wrapper" "$atoll_folder" "$atoll_native" - "$atoll_root/news"
atoll_code=$?

if [ -n "$atoll_group" ]; then
    atoll_count
    atoll_peak=0
    read -r atoll_peak <"$atoll_peak_file"
    if [ -n "$atoll_limit_file" ] && [ "$atoll_kills $atoll_code" = "0 137" ]; then
        # groups that counted are gone with their step: it was killed, and all its memory had been in use
        atoll_limit=''
        read -r atoll_limit <"$atoll_limit_file"
        [ -z "$atoll_limit" ] || [ "$atoll_peak" -lt "$atoll_limit" ] || atoll_kills=1
    fi
    echo "$atoll_kills $atoll_peak" >"$atoll_folder/usage"
fi 2>/dev/null
[ ! -e "$atoll_folder/secrets" ] || PATH=/usr/bin:/bin rm -rf "$atoll_folder/secrets"
atoll_kill "$$"
# where Slurm sent a signal it is Slurm that must be asked how it ended
[ -n "$atoll_termed" ] || echo "$atoll_id" >>"$atoll_root/news"
exit "$atoll_code"
