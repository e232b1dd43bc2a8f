# Sends files of the archive: COMPRESSORS PARTIAL WALS INCOMING STREAMING [PATH-IN-WALS NAME]...
# For each "file SIZE PLACE", its bytes and a line end; after the last one "done". Ends at the first
# that is not there ("missing") or that we may not see or read ("denied").
set -f
compressors=$1 partial=$2 wals=$3 incoming=$4 streaming=$5
shift 5

# There, but we may not look into it.
closed() { [ -e "$1" ] && ! [ -x "$1" ]; }

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

send() {
    if ! [ -d "$wals" ] || closed "$wals" || closed "$incoming" || closed "$streaming"; then
        echo denied 0 wals
        return
    fi
    while [ $# -gt 0 ]; do
        case $1 in */*) if closed "$wals/${1%/*}"; then echo denied 0 wals; return; fi ;; esac
        find_file "$1" "$2" || { echo missing 0 -; return; }
        [ -r "$file" ] || { echo denied 0 "$place"; return; }
        size=$(wc -c <"$file") || { echo missing 0 -; return; }
        echo file $((size)) "$place"
        cat "$file"
        echo
        shift 2
    done
    echo "done 0 -"
}

for program in $compressors; do
    if command -v "$program" >/dev/null 2>&1; then
        send "$@" | "$program" -1 -c -q
        exit
    fi
done
send "$@"
