# Sends what says where Barman keeps WAL: SERVER CONFIG [DIRECTORY]
# In the form of send.sh: the configuration files in the order in which Barman reads them ("main",
# "include", "auto"), then "identity" and "model" of the server's DIRECTORY, by default that below
# barman_home.
export LC_ALL=C
server=$1 main=$2 directory=$3

if [ -z "$main" ]; then
    # Barman's own order, 1.6 to 3.19.
    for main in "$BARMAN_CONFIG_FILE" ~/.barman.conf /etc/barman.conf /etc/barman/barman.conf; do
        [ -n "$main" ] && [ -e "$main" ] && break
    done
fi

show() {
    [ -r "$2" ] || { echo denied 0 "$1"; exit; }
    size=$(wc -c <"$2") || { echo denied 0 "$1"; exit; }
    echo file $((size)) "$1"
    cat "$2"
    echo
}

value() {
    sed -n "s/^$1[[:space:]]*[=:][[:space:]]*//p" "$main" | tail -n 1 | sed 's/[[:space:]]*$//; s/^\(["'\'']\)\(.*\)\1$/\2/'
}

[ -f "$main" ] || { echo missing 0 -; exit; }
show main "$main"
home=$(value barman_home)
include=$(value configuration_files_directory)
if [ -n "$include" ] && [ -e "$include" ]; then
    [ -r "$include" ] && [ -x "$include" ] || { echo denied 0 include; exit; }
    for file in "$include"/*.conf; do
        [ -e "$file" ] && show include "$file"
    done
fi
[ -n "$home" ] && [ -e "$home/.barman.auto.conf" ] && show auto "$home/.barman.auto.conf"
[ -n "$directory" ] || directory=$home/$server
for pair in identity:identity.json model:.active-model.auto; do
    file=$directory/${pair#*:}
    [ -e "$file" ] && show "${pair%%:*}" "$file"
done
# What we took these for, for the reader to compare with what it reads in the files.
echo file ${#home} home
printf '%s\n' "$home"
echo file ${#include} files
printf '%s\n' "$include"
echo file ${#directory} directory
printf '%s\n' "$directory"
echo "done 0 -"
