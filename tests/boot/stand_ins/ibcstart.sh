#!/bin/bash
# What the boots have in place of IBC's ibcstart.sh: its arguments, its checks with their exit codes, where it looks
# for Java, how it finds a session to go on with, and its loop. From IBC's source; none of it is copied.
mode="" settings="" ini="" tws="" java="" on2fatimeout=""
version=$1
shift
for argument; do
    case $argument in
    -g | --gateway) ;;
    --tws-path=*) tws=${argument#*=} ;;
    --tws-settings-path=*) settings=${argument#*=} ;;
    --ibc-path=*) ;;
    --ibc-ini=*) ini=${argument#*=} ;;
    --java-path=*) java=${argument#*=} ;;
    --mode=*) mode=${argument#*=} ;;
    --on2fatimeout=*) on2fatimeout=${argument#*=} ;;
    *) echo "Error: Invalid parameter '$argument'" >&2; exit 3 ;;
    esac
done
gateway=$tws/ibgateway/$version
[ -e "$settings" ] || { echo "Error: TWS settings path: $settings does not exist" >&2; exit 5; }
[ -e "$gateway/jars" ] || { echo "Error: Offline TWS/Gateway version $version is not installed" >&2; exit 4; }
[ -e "$ini" ] || { echo "Error: IBC configuration file: $ini  does not exist" >&2; exit 6; }
[ -e "$gateway/ibgateway.vmoptions" ] || { echo "Error: no vmoptions" >&2; exit 7; }
if [ -z "$java" ] && [ -e "$gateway/.install4j/pref_jre.cfg" ]; then
    java=$(cat "$gateway/.install4j/pref_jre.cfg")/bin
fi
[ -x "$java/java" ] || { echo "Error: Can't find suitable Java installation" >&2; exit 1; }
[ ! -e "$gateway/ibgateway" ] || mv "$gateway/ibgateway" "$gateway/ibgateway1"

while :; do
    restart=()
    if [ -e "$settings/autorestart" ]; then
        echo "autorestart file found at $settings/autorestart: authentication will not be required"
        restart=(-Drestart=session)
        rm "$settings/autorestart"
    fi
    trap 'kill -TERM "$PID"' TERM INT
    "$java/java" -DjtsConfigDir="$settings" "${restart[@]}" ibcalpha.ibc.IbcGateway "$ini" "$mode" &
    PID=$!
    wait "$PID"
    trap - TERM INT
    wait "$PID"
    code=$?
    echo "IBC returned exit status $code"
    [ "$code" -eq 88 ] || [ "$code$on2fatimeout" = 87restart ] || break
    echo "IBC will restart shortly"
done
echo "Gateway finished"
exit "$code"
