#!/bin/sh
# What runs in the pod of an attempt, around wrapper.sh:  sh pod.sh VERB [WORD...]
#
#   main                  process 1 of the container that runs the job
#   keep SECONDS          process 1 of the container beside it, which keeps the attempt's folder readable after the end,
#                         until nobody has read it for so long; the output then goes to its own log
#   stop REASON GRACE     in the job's container: TERM to all, after GRACE seconds KILL; the first REASON is noted
#   tell SIGNAL           in the job's container: a signal to all
#   enter WORD...         in the job's container: a command with the job's environment and working directory
#   read STREAM FROM MOST in the other container: "SIZE START", then at most MOST bytes of output
#   list, take            in the other container: names of the job's files; those named on the input, as tar
#
# /atoll/in is what the driver wrote (read only), /atoll/run the attempt's folder, which both containers see. The two do
# not see each other's processes: a job cannot end what keeps its output. Plain POSIX sh and the usual small programs.

pod_in=/atoll/in pod_run=/atoll/run pod_private=/atoll/private
pod_cgroup1=/sys/fs/cgroup/memory/memory.oom_control
pod_path=$PATH
PATH=$PATH:/usr/bin:/bin
. "$pod_in/place"

# -- the job's container ---------------------------------------------------------------------------------------------

# The file $1 with mode $2 from the parts $3...
lay() {
    pod_file=$1 pod_mode=$2
    shift 2
    case $pod_file in */*) mkdir -p -- "${pod_file%/*}" ;; esac &&
        cat -- "$@" >"$pod_file" && chmod "$pod_mode" -- "$pod_file"
}

# The secrets, for the wrapper: in memory, closed to others, and out of reach of what takes files out.
lay_secrets() {
    (umask 077 && mkdir -p "$pod_private/secrets" && cp -L -- /atoll/secrets/* "$pod_private/secrets/")
}

# Wait until all nodes have their places: each has a name from then on.
gather() {
    pod_waited=0
    pod_job=${HOSTNAME%-"$JOB_COMPLETION_INDEX"}
    pod_node=0
    while [ "$pod_node" -lt "$pod_nodes" ]; do
        if [ "$pod_node" = "$JOB_COMPLETION_INDEX" ] || getent hosts "$pod_job-$pod_node.$pod_service" >/dev/null 2>&1
        then
            pod_node=$((pod_node + 1))
        elif [ -e asked ]; then
            return 0
        elif [ "$pod_waited" -ge "$pod_start_within" ]; then
            return 1
        else
            sleep 1
            pod_waited=$((pod_waited + 1))
        fi
    done
}

# What the engine shall know of the end: $1 is the exit code where the wrapper wrote none. Builtins only: a KILL for
# all may still be on its way, and spares nobody but this shell.
report() {
    {
        [ ! -f asked ] || { read -r pod_line <asked && printf '%s\n' "$pod_line"; }
        memory
        pod_line= pod_count=0
        if [ -f end ] && [ ! -L end ]; then
            while [ "$pod_count" -lt 9 ] && read -r pod_word; do
                pod_line=$pod_word pod_count=$((pod_count + 1))
                printf '%s\n' "$pod_line"
            done <end
        fi
        case $pod_line in
        exit\ * | signal\ *) ;;
        *)
            if [ "$1" -gt 128 ] && [ "$1" -le 192 ]; then
                printf 'signal %d\n' "$(($1 - 128))"
            else
                printf 'exit %d\n' "$1"
            fi
            ;;
        esac
    } >/dev/termination-log
}

# Kills for want of memory so far.
oom_kills() {
    pod_kills=0
    for pod_counts in /sys/fs/cgroup/memory.events "$pod_cgroup1"; do
        [ -r "$pod_counts" ] || continue
        while read -r pod_word pod_number; do
            [ "$pod_word" != oom_kill ] || pod_kills=$pod_number
        done <"$pod_counts"
    done
}

# "memory PEAK KILLS", as far as the cgroup tells.
memory() {
    oom_kills
    for pod_peak in /sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes; do
        if [ -r "$pod_peak" ] && read -r pod_number <"$pod_peak"; then
            printf 'memory %d %d\n' "$pod_number" "$pod_kills"
            return
        fi
    done
    printf 'memory 0 %d\n' "$pod_kills"
}

# Ends the job at its walltime; nothing but KILL disturbs this, so it also outlives signals for all.
guard() {
    trap '' HUP INT QUIT TERM USR1 USR2 ALRM
    if [ -n "$pod_signal" ]; then
        sleep "$((pod_walltime - pod_before))"
        kill -s "$pod_signal" -- -1
        sleep "$pod_before"
    else
        sleep "$pod_walltime"
    fi
    stop timed_out "$pod_grace"
}

# Where the kernel kills one process for want of memory and not the whole container (cgroup 1), end the rest. Builtins
# only: without memory nothing can be started; so the other container tells the time.
guard_memory() {
    trap '' HUP INT QUIT TERM USR1 USR2 ALRM
    while read -r pod_word <tick; do
        oom_kills
        if [ "$pod_kills" != 0 ]; then
            ask out_of_memory
            kill -s KILL -- -1
        fi
    done
}

# Note why the job is ended; whether nobody has before.
ask() {
    set -C
    { printf 'asked %s\n' "$1" >asked; } 2>/dev/null
    pod_status=$?
    set +C
    return "$pod_status"
}

main() {
    umask 022
    cd "$pod_run" || exit 126
    mkfifo alive 2>/dev/null
    [ ! -r "$pod_cgroup1" ] || mkfifo tick 2>/dev/null
    exec 9>alive # the other container learns of our end, however it comes, when this closes
    mkdir -p work scratch home "$pod_private" && . "$pod_in/lay" || {
        echo 'atoll: the files of the attempt cannot be laid out' >&2
        report 126
        exit 126
    }
    pod_list=$HOSTNAME
    if [ "$pod_nodes" -gt 1 ]; then
        pod_list="${HOSTNAME%-"$JOB_COMPLETION_INDEX"}-[0-$((pod_nodes - 1))]"
        export ATOLL_NODE_RANK="$JOB_COMPLETION_INDEX"
        gather || {
            ask late
            report 125
            exit 125
        }
        if [ "$pod_launch" = once ] && [ "$JOB_COMPLETION_INDEX" != 0 ]; then
            # this node is the job's, and its processes come from the first one
            while [ ! -e asked ]; do sleep 3600; done
            report 0
            exit 0
        fi
    fi
    if [ -n "$pod_slurm" ]; then
        export SLURMD_NODENAME="$HOSTNAME" SLURM_JOB_NODELIST="$pod_list" SLURM_NODELIST="$pod_list"
        export SLURM_NODEID="${JOB_COMPLETION_INDEX:-0}" SLURM_PROCID="${JOB_COMPLETION_INDEX:-0}"
    fi
    pod_code=143
    if [ ! -e asked ]; then
        [ -z "$pod_walltime" ] || guard 9>&- &
        [ ! -p tick ] || guard_memory 9>&- &
        # not in the background: there a shell has its commands ignore INT and QUIT
        PATH=$pod_path sh "$pod_in/wrapper.sh" "$pod_run" "$pod_native" 9>&-
        pod_code=$?
    fi
    report "$pod_code"
    exit "$pod_code"
}

stop() {
    trap '' HUP INT QUIT TERM USR1 USR2 ALRM
    cd "$pod_run" || exit 1
    pod_first=
    ask "$1" && pod_first=1
    pod_whole=${2%%.*}
    pod_due=$(($(date +%s) + pod_whole))
    pod_known=
    [ ! -f due ] || read -r pod_known <due
    if [ -z "$pod_known" ] || [ "$pod_due" -lt "$pod_known" ]; then
        printf '%d\n' "$pod_due" >due
        if [ "$2" = 0 ]; then
            kill -s KILL -- -1
            return
        fi
        sh "$pod_in/pod.sh" slay "$2" </dev/null >/dev/null 2>&1 9>&- &
    fi
    [ -z "$pod_first" ] || kill -s TERM -- -1
}

slay() {
    sleep "$1"
    kill -s KILL -- -1
}

enter() {
    cd "$pod_workdir" 2>/dev/null || cd /
    PATH=$pod_path
    [ ! -f /atoll/secrets/env ] || . /atoll/secrets/env
    . "$pod_in/environ"
    exec "$@"
}

# -- the other container ---------------------------------------------------------------------------------------------

keep() {
    trap 'exit 0' TERM
    cd "$pod_run" || exit 1
    mkfifo alive 2>/dev/null
    if [ -r "$pod_cgroup1" ]; then
        mkfifo tick 2>/dev/null
        while sleep 1; do echo >tick; done &
    fi
    cat alive >/dev/null &
    wait "$!"
    # while somebody reads, the time begins anew
    while :; do
        : >mark
        sleep "$1" &
        wait "$!"
        [ used -nt mark ] || break
    done
    tell_rest stdout
    tell_rest stderr
    exit 0
}

# The end of an output as this container's own log, which the engine keeps longer than the files.
tell_rest() {
    [ -f "$1" ] && [ ! -L "$1" ] || return 0
    pod_size=$(wc -c <"$1")
    pod_start=$((pod_size > 2097152 ? pod_size - 2097152 : 0))
    printf 'atoll %s %d %d\n' "$1" "$pod_size" "$pod_start"
    tail -c "+$((pod_start + 1))" -- "$1" | base64
}

read_output() {
    : >"$pod_run/used"
    pod_file=$pod_run/$1
    if [ -L "$pod_file" ] || [ ! -f "$pod_file" ]; then
        echo '0 0'
        return
    fi
    pod_size=$(wc -c <"$pod_file")
    pod_start=$2
    [ "$pod_start" -ge 0 ] || pod_start=$((pod_size + pod_start))
    [ "$pod_start" -ge 0 ] || pod_start=0
    [ "$pod_start" -le "$pod_size" ] || pod_start=$pod_size
    printf '%d %d\n' "$pod_size" "$pod_start"
    tail -c "+$((pod_start + 1))" -- "$pod_file" | head -c "$3"
}

list() {
    : >"$pod_run/used"
    cd "$pod_workdir" 2>/dev/null || return 0
    find . ! -type d -print0 | head -c 16777216
}

# Names come one a line, and an empty line ends them. Of links only those are followed that stay in the folder.
take() {
    cd "$pod_workdir" 2>/dev/null || exit 1
    pod_here=$(pwd -P)
    pod_names=$pod_run/taken.$$
    while IFS= read -r pod_name && [ -n "$pod_name" ]; do
        if [ -L "$pod_name" ]; then
            case $(readlink -f -- "$pod_name") in "$pod_here"/*) ;; *) continue ;; esac
        fi
        [ ! -f "$pod_name" ] || printf '%s\n' "$pod_name"
    done >"$pod_names"
    tar -chf - -T "$pod_names"
    rm -f -- "$pod_names"
}

pod_verb=$1
shift
case $pod_verb in
main) main ;;
keep) keep "$1" ;;
stop) stop "$@" ;;
slay) slay "$1" ;;
tell) kill -s "$1" -- -1 ;;
leave) kill -s TERM -- -1 ;;
enter) enter "$@" ;;
read) read_output "$@" ;;
list) list ;;
take) take ;;
*) exit 64 ;;
esac
