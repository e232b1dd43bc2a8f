# Sends what says where Barman keeps WAL: SERVER CONFIG DIRECTORY, and then what send.sh does with the
# rest of the arguments, if that can be told here.
#
# "paths": the files read, in Barman's order, each behind "main", "include", "auto", or "identity" and
# "model" of the server's DIRECTORY (by default that below barman_home); "text": lines of theirs that matter,
# each behind its file's path and a colon; "home", "files", "directory": what we took these for, for the reader to
# compare with what it finds in the text; last "guess" or "done". Few processes, for speed.
export LC_ALL=C
server=$1 main=$2 directory=$3
shift 3

if [ -z "$main" ]; then
    # Barman's own order, 1.6 to 3.19.
    for main in "$BARMAN_CONFIG_FILE" ~/.barman.conf /etc/barman.conf /etc/barman/barman.conf; do
        [ -n "$main" ] && [ -e "$main" ] && break
    done
fi

record() {
    echo file ${#2} "$1"
    printf '%s\n' "$2"
}

paths=
add() {
    [ -r "$2" ] || { echo denied 0 "$1"; exit; }
    paths="$paths$1 $2
"
}

unquote() {
    case $1 in
    \"*\" | \'*\')
        value=${1#?}
        value=${value%?}
        ;;
    *) value=$1 ;;
    esac
}

[ -f "$main" ] || { echo missing 0 -; exit; }
add main "$main"
settings=$(sed -n -e 's/^barman_home[[:space:]]*[=:]/home /p' \
    -e 's/^configuration_files_directory[[:space:]]*[=:]/include /p' "$main")
home= include=
while read -r key value; do
    unquote "$value"
    case $key in
    home) home=$value ;;
    include) include=$value ;;
    esac
done <<end
$settings
end
if [ -n "$include" ] && [ -e "$include" ]; then
    [ -r "$include" ] && [ -x "$include" ] || { echo denied 0 include; exit; }
    for file in "$include"/*.conf; do
        [ -e "$file" ] && add include "$file"
    done
fi
[ -n "$home" ] && [ -e "$home/.barman.auto.conf" ] && add auto "$home/.barman.auto.conf"
[ -n "$directory" ] || directory=$home/$server
[ -e "$directory/identity.json" ] && add identity "$directory/identity.json"
[ -s "$directory/.active-model.auto" ] && add model "$directory/.active-model.auto"

text=$(
    set --
    while read -r kind file; do
        [ -n "$file" ] && set -- "$@" "$file"
    done <<end
$paths
end
    # Not the lines with passwords.
    exec grep -e '^[[:space:]]*\[' -e barman_home -e _directory -e compression -e model -e systemid /dev/null "$@"
)
record paths "$paths"
record text "$text"
record home "$home"
record files "$include"
record directory "$directory"
case $text in
*backup_directory* | *wals_directory*)
    # Somebody may have put them elsewhere.
    echo "done 0 -"
    exit
    ;;
esac
if [ $# = 0 ]; then
    echo "done 0 -"
    exit
fi
echo file 0 guess
echo
compressors=$1 partial=$2
shift 2
# What is compressed already is not worth another effort.
case $text in *compression*) compressors= ;; esac
set -- "$compressors" "$partial" "$directory/wals" "$directory/incoming" "$directory/streaming" "$@"
