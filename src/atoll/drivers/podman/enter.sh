#!/bin/sh
# Runs a command beside the attempt's own, with its environment and in its working directory:  sh enter.sh WORD...

cd /atoll/attempt || exit 126
# what the wrapper reads redirects output and sets words; both are put back
exec 4>&1 5>&2
enter() { . ./launch; }
atoll_workdir=/atoll/attempt/work atoll_venv=
enter
exec >&4 2>&5 3>&- 4>&- 5>&-
cd -- "$atoll_workdir" || exit 126
unset OLDPWD
exec "$@"
