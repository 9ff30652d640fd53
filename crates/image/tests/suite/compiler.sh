#!/bin/sh
# Stands in for nodule-compile. What it does is written in the program that it is given.
if [ "$1" = key ]; then
    echo engine1
    exit 0
fi
echo $$ >> "$2.runs"
if grep -aq 'no start' "$2"; then
    echo 'some noise' >&2
    echo 'the module exports no _start' >&2
    exit 2
elif grep -aq 'die' "$2"; then
    kill -9 $$
elif grep -aq 'fail' "$2"; then
    echo 'no space left' >&2
    exit 1
elif grep -aq 'slow' "$2"; then
    exec sleep 1000
fi
{ echo "$4 $5 $6 $7"; env; } > "$3"
echo '{"kind":"module","wasi":"p1"}'
