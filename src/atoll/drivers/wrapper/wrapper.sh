#!/bin/sh
# Every attempt starts through this script:  sh wrapper.sh FOLDER [NATIVE_ID [claimed|- [NEWS]]]
#
# FOLDER is the attempt's own, an absolute path; it holds `launch`, the shell text that launch.py renders. Written here:
#   claim/  made by an atomic mkdir: whoever makes it runs the attempt, everybody else ends at once. A starter that has
#           made it already says "claimed", which saves a process.
#   start   "PID NATIVE_ID"; its modification time is the start
#   end     what `times` says, then one line "exit CODE" or "signal NUMBER"; the record counts only with the newline
#           of that line; its modification time is the end
#   NEWS    gets a line with the folder's name, once `start` is there
#   shell   what this shell said of the command's end: an ash (dash) says how a signal ended it
#
# Plain POSIX sh, and no other program unless the job needs one: a trivial job costs one shell and its command.
# All names here begin with atoll_, and launch.py lets no job set such a name in this shell.

cd -- "$1" || exit 125
atoll_folder=$1
if [ "${3:-}" != claimed ] && ! PATH=/usr/bin:/bin mkdir claim 2>/dev/null; then
    [ -d claim ] && exit 0
    echo "atoll: the attempt cannot be claimed: no folder can be made in $1" >&2
    exit 125
fi
# A signal for the whole group must not keep the end from being written; the command gets the defaults back.
atoll_asked=
trap : HUP INT QUIT USR1 USR2 ALRM
trap 'atoll_asked=1' TERM

# Without this record nobody could tell later whether the command ran: so it does not.
printf '%s %s\n' "$$" "${2:-$$}" >start || exit 125
[ -z "${4:-}" ] || printf '%s\n' "${1##*/}" 2>/dev/null >>"$4"

# Descriptor 3 is the job's error output; what this shell itself says goes to a file.
exec 3>&2 2>shell
atoll_workdir=$atoll_folder atoll_files= atoll_stdin=/dev/null atoll_venv= atoll_conda= atoll_environment=
atoll_stdout_file= atoll_stderr_file= atoll_copy_stdout= atoll_copy_stderr= atoll_secrets=
. ./launch
if [ -n "$atoll_secrets" ]; then
    . "$atoll_secrets/env"
    PATH=/usr/bin:/bin rm -f -- "$atoll_secrets/env"
fi

# Say on the job's error output why its command cannot start.
atoll_fail() {
    printf 'atoll: %s\n' "$1" >&3
    return 1
}

# The file $2 gets the output $1 too: as a second name of the same file, or else, by atoll_finish, as a copy.
atoll_link() {
    PATH=/usr/bin:/bin ln -f -- "$atoll_folder/$1" "$2" 2>/dev/null && return 0
    true 2>/dev/null >"$2" || atoll_fail "the file $2 for $1 cannot be written" || return 1
    return 2
}

atoll_prepare() {
    cd -- "$atoll_workdir" 2>/dev/null || atoll_fail "the working directory $atoll_workdir cannot be entered" || return
    [ -z "$atoll_files" ] || PATH=/usr/bin:/bin cp -R -- "$atoll_files/." . 2>&3 ||
        atoll_fail "the job's files cannot be laid into $atoll_workdir" || return
    [ -z "$atoll_secrets" ] || atoll_link_secrets 2>&3 ||
        atoll_fail "the job's secrets cannot be laid into $atoll_workdir" || return
    if [ -n "$atoll_stdout_file" ]; then
        atoll_link stdout "$atoll_stdout_file"
        case $? in 1) return 1 ;; 2) atoll_copy_stdout=1 ;; esac
    fi
    if [ -n "$atoll_stderr_file" ]; then
        atoll_link stderr "$atoll_stderr_file"
        case $? in 1) return 1 ;; 2) atoll_copy_stderr=1 ;; esac
    fi
    [ -f "$atoll_stdin" ] || [ -c "$atoll_stdin" ] || atoll_fail "the input file $atoll_stdin is not there" || return
    [ -r "$atoll_stdin" ] || atoll_fail "the input file $atoll_stdin cannot be read" || return
    if [ -n "$atoll_venv" ]; then
        [ -x "$atoll_venv/bin/python" ] || atoll_fail "$atoll_venv is no Python venv" || return
        export VIRTUAL_ENV="$atoll_venv" PATH="$atoll_venv/bin:$PATH"
        unset PYTHONHOME
    fi
    if [ -n "$atoll_conda" ]; then
        atoll_hook=$("$atoll_conda" shell.posix activate "$atoll_environment" 2>&3) && eval "$atoll_hook" 2>&3 ||
            atoll_fail "the conda environment $atoll_environment cannot be activated" || return
    fi
}

# Copy output to the files that could not be a second name of it.
atoll_finish() {
    [ -z "$atoll_copy_stdout" ] || PATH=/usr/bin:/bin cp -- "$atoll_folder/stdout" "$atoll_stdout_file" 2>&3
    [ -z "$atoll_copy_stderr" ] || PATH=/usr/bin:/bin cp -- "$atoll_folder/stderr" "$atoll_stderr_file" 2>&3
}

if ! atoll_prepare; then
    atoll_code=126
elif [ -n "$atoll_asked" ]; then
    atoll_code=143
else
    unset OLDPWD
    # exec: so that no builtin or function of this shell is taken for the job's command
    (exec "$@") <"$atoll_stdin" 2>&3 3>&-
    atoll_code=$?
fi

# ksh93 tells a signal as 256 + n
[ "$atoll_code" -le 256 ] || atoll_code=$((atoll_code - 128))
atoll_end="exit $atoll_code"
if [ "$atoll_code" -gt 128 ] && [ "$atoll_code" -le 192 ]; then
    # 128+n is a signal or a plain exit code. An ash tells them apart by its words, but is silent on INT and PIPE;
    # other shells say nothing reliable, and there every such code counts as a signal.
    case $atoll_code in 130 | 141) atoll_spoke=1 ;; *) atoll_spoke=${BASH_VERSION:-}${KSH_VERSION:-}${ZSH_VERSION:-} ;; esac
    if [ -n "$atoll_spoke$atoll_asked" ] || [ -s "$atoll_folder/shell" ]; then
        atoll_end="signal $((atoll_code - 128))"
    fi
fi
[ -z "$atoll_copy_stdout$atoll_copy_stderr" ] || atoll_finish
if [ -n "$atoll_secrets" ]; then
    atoll_unlink_secrets
    PATH=/usr/bin:/bin rm -rf -- "$atoll_secrets"
fi
{
    times
    printf '%s\n' "$atoll_end"
} >"$atoll_folder/end"

# What the command left behind ends with it. Where this shell is the reaper of its descendants (Linux: the starter set
# PR_SET_CHILD_SUBREAPER) they become its children one after the other; elsewhere the engine ends them.
atoll_rounds=0
while [ "$atoll_rounds" -lt 500 ]; do
    atoll_left=
    read -r atoll_left <"/proc/$$/task/$$/children"
    [ -n "$atoll_left" ] || break
    # shellcheck disable=SC2086  # a list of process ids
    kill -9 $atoll_left
    : &
    wait "$!" # collects the others that have ended, too
    atoll_rounds=$((atoll_rounds + 1))
done 2>/dev/null
exit "$atoll_code"
