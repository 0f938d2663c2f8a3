#!/bin/sh
# The first process of every container:  sh keeper.sh NATIVE_ID WALLTIME GRACE SIGNAL BEFORE
#
# It starts the wrapper, and holds the attempt to its walltime, its memory and its stop even where nobody outside is
# alive to do it. WALLTIME, GRACE and BEFORE are seconds; 0 for none. When it ends the container ends, and all in it.
#
# /atoll/attempt    the attempt's folder; here `verdict` is written: a line for each thing that was done to the attempt
# /atoll/orders     what the platform wants of the attempt, which it can read only: `stop` ("REASON SECONDS DEADLINE"), and the
#                   pipe `bell`, on which a line says what to do now: stop, or kill SIGNAL
# Plain POSIX sh; of other programs only sleep and rm, and cp where there are secrets. Nothing is looked at more often
# than memory is, and that costs a process every three seconds.

cd /atoll/attempt || exit 125
native=$1 walltime=$2 grace=$3 signal=$4 before=$5
orders=/atoll/orders memory=/sys/fs/cgroup/memory

# All but the first process, and whoever calls this, get a signal: that is what kill does with -1.
everybody() { kill "-$1" -1; }

# A pipe that the job put there would hold up whoever writes to it.
note() {
    [ -f verdict ] || rm -rf verdict
    printf '%s\n' "$1" >>verdict
}

# What a killed process is told of here counts as why the attempt ended, unless the wrapper wrote its end already.
say() { [ -e end ] || note "$1"; }

end_after() {
    sleep "$1"
    everybody KILL
}

# Processes below $2, which a signal to all would not be good for: it would hit the wrapper too.
below() {
    children=
    read -r children <"/proc/$2/task/$2/children" # which ends without a newline, so that read says it failed
    for child in $children; do
        (below "$1" "$child")
        kill "-$1" "$child"
    done
}

obey() {
    exec 4<>"$orders/bell"
    stopping=
    [ -e "$orders/stop" ] && echo stop >&4
    while read -r order what <&4; do
        case $order in
            stop)
                read -r reason left deadline <"$orders/stop" || continue
                [ -e end ] && continue
                if [ -z "$stopping" ]; then
                    stopping=1
                    say "stopped $reason"
                    [ -e start ] || sleep 1 # nobody would hear it yet
                    everybody TERM
                fi
                end_after "$left" &
                ;;
            kill)
                case $what in
                    HUP | INT | QUIT | USR1 | USR2 | TERM | CONT | ALRM) everybody "$what" ;;
                    *) read -r wrapper what_else <start && below "$what" "$wrapper" ;;
                esac
                ;;
        esac
    done
}

watch_time() {
    if [ -n "$signal" ] && [ "$before" -lt "$walltime" ]; then
        sleep $((walltime - before))
        everybody "$signal"
        sleep "$before"
    else
        [ -z "$signal" ] || everybody "$signal"
        sleep "$walltime"
    fi
    say timed_out
    everybody TERM
    end_after "$grace"
}

# How often the kernel has killed here for want of memory, by cgroups of version 2 or 1; empty where it does not tell.
memory_kills() {
    for file in /sys/fs/cgroup/memory.events $memory/memory.oom_control; do
        [ -r "$file" ] || continue
        while read -r key count; do
            [ "$key" = oom_kill ] && [ "$count" -gt 0 ] && echo "$count"
        done <"$file"
    done
}

# Without this, what is left of a job that lost a process would go on, and perhaps wait for it for ever.
watch_memory() {
    while sleep 3; do
        if [ -n "$(memory_kills)" ]; then
            say out_of_memory
            everybody KILL
        fi
    done
}

# Secrets are moved to memory that goes with the container: nothing of them is left at the end, however it comes.
if [ -d secrets ]; then
    (umask 077 && cp -R secrets /dev/shm/atoll && rm -rf secrets) || exit 125
fi

# Signals are for the job; a shell that waits in the background ignores INT and QUIT for good, and so would a job in
# it, so the wrapper is what runs in front.
for duty in obey watch_memory ${walltime:+watch_time}; do
    [ "$duty:$walltime" = watch_time:0 ] && continue
    (
        trap '' HUP INT QUIT USR1 USR2 ALRM TERM
        exec >/dev/null 2>&1 </dev/null
        "$duty"
    ) &
done
if [ -e "$orders/stop" ]; then
    read -r reason left deadline <"$orders/stop"
    say "stopped $reason"
    exit 143
fi
/bin/sh /atoll/tools/wrapper.sh /atoll/attempt "$native"
code=$?

[ "$code" -eq 0 ] || [ -z "$(memory_kills)" ] || note out_of_memory
for file in /sys/fs/cgroup/memory.peak $memory/memory.max_usage_in_bytes; do
    [ -r "$file" ] && read -r peak <"$file" && note "peak $peak"
done
exit "$code"
