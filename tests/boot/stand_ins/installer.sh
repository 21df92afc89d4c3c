#!/bin/sh
# What the boots have in place of IB Gateway's installer, as far as its machine can tell: a self-extracting archive
# that takes -q and -dir, puts the JRE into the home of the user who runs it, and starts with an error otherwise.
set -eu
quiet="" directory=""
while [ "$#" -gt 0 ]; do
    case $1 in
    -q) quiet=yes ;;
    -dir) directory=$2; shift ;;
    *) echo "unknown option $1" >&2; exit 1 ;;
    esac
    shift
done
if [ -z "$quiet" ] || [ -z "$directory" ]; then
    echo "this installer was meant to be unattended" >&2
    exit 1
fi
jre=$HOME/.local/share/i4j_jres/Oda-jK0QgTEmVssfllLP/17.0.10.0.101-zulu_64
mkdir -p "$directory/jars" "$directory/.install4j" "$jre/bin"
echo "-Xmx768m" > "$directory/ibgateway.vmoptions"
echo "#!/bin/sh" > "$directory/ibgateway"
sed '1,/^__JAVA__$/d' "$0" > "$jre/bin/java"
chmod 0755 "$jre/bin/java" "$directory/ibgateway"
echo "Finishing installation ..."
exit 0
# shellcheck disable=SC2317 # where what is unpacked begins
__JAVA__
