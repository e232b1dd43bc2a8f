# Sends files of the archive: COMPRESSORS PARTIAL WALS INCOMING STREAMING [PATH-IN-WALS NAME]...
# First "next SIZE PLACE" for each, up to the first that is not there ("missing", or "empty" where WALS
# shows no WAL at all, as where it is not mounted) or that we may not see or read ("denied"), or all
# ("done"), and behind that word the compressor or "-". Then all contents, one
# behind the other, compressed as one.
set -f
compressors=$1 partial=$2 wals=$3 incoming=$4 streaming=$5
shift 5
# They hold no blanks.
names=$*

# There, but we may not look into it.
closed() { [ -e "$1" ] && ! [ -x "$1" ]; }

# A directory that is not mounted knows nothing. What arrives is no proof: it comes from the primary.
shows_wal() {
    set +f
    for log in "$wals"/????????????????; do
        for file in "$log"/????????????????????????*; do
            [ -f "$file" ] && set -f && return 0
        done
    done
    set -f
    return 1
}

# Barman's own order; wals once more at the end, for the archiver may have moved the file meanwhile.
find_file() {
    for place in wals incoming streaming $partial wals; do
        case $place in
        wals) file=$wals/$1 ;;
        incoming) file=$incoming/$2 ;;
        streaming) file=$streaming/$2 ;;
        wals.partial) file=$wals/$1.partial ;;
        incoming.partial) file=$incoming/$2.partial ;;
        streaming.partial) file=$streaming/$2.partial ;;
        esac
        [ -f "$file" ] && return 0
    done
    return 1
}

program=-
for try in $compressors; do
    command -v "$try" >/dev/null 2>&1 && { program=$try; break; }
done

# Again, if the archiver moves a file between two looks.
for attempt in 1 2 3; do
    set -- $names
    left=$# end='' places=''
    if ! [ -d "$wals" ] || closed "$wals" || closed "$incoming" || closed "$streaming"; then
        end=denied
    fi
    # Takes pairs from the front, and puts the files found behind them.
    while [ -z "$end" ] && [ "$left" -gt 0 ]; do
        case $1 in */*) closed "$wals/${1%/*}" && end=denied && break ;; esac
        find_file "$1" "$2" || { end=missing; break; }
        [ -r "$file" ] || { end=denied; break; }
        shift 2
        set -- "$@" "$file"
        places="$places $place"
        left=$((left - 2))
    done
    shift "$left"
    [ $# = 0 ] && break
    sizes=$(wc -c "$@") && break
    sizes=
done
[ "$end" = missing ] && ! shows_wal && end=empty
for place in $places; do
    read -r size more
    echo next "$size" "$place"
done <<end
$sizes
end
echo "${end:-done}" 0 "$program"
[ $# = 0 ] && exit
case $program in
-) exec cat "$@" ;;
# Reads the files itself; the second thread takes a quarter off the time for a single one.
zstd) exec zstd -1 -c -q -f -T2 "$@" ;;
*) cat "$@" | "$program" -1 -c -q ;;
esac
