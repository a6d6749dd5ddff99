# bash completion for repohostd

_repohostd() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev='' command=serve word
    ((COMP_CWORD > 0)) && prev=${COMP_WORDS[COMP_CWORD - 1]}
    # readline splits at the equals sign
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ $word != -* ]]; then
            command=$word
            break
        fi
    done
    case "$prev" in
    --*-file | --config | --repohostd-config)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --directory | --pg-path | --*-path)
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        return
        ;;
    --log-level-*)
        mapfile -t COMPREPLY < <(compgen -W 'off error warn info detail debug trace' -- "$cur")
        return
        ;;
    --client | --port | --release | --repo | --restore | --stanza | --tls-server-*) return ;;
    esac
    if [[ $cur != -* ]] && ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W 'serve check status learn history systemd-drop-in quickstart ping version help' -- "$cur")
        return
    fi
    local options
    case "$command" in
    serve | server | check | status | learn | history | systemd-drop-in)
        options='--config= --tls-server-address= --tls-server-port= --tls-server-cert-file= --tls-server-key-file=
            --tls-server-ca-file= --tls-server-auth= --log-level-console= --log-level-file= --log-path= --release=
            --repohostd-config= --help'
        [[ $command != status ]] || options+=' --json'
        [[ $command != history ]] || options+=' --stanza= --repo= --restore='
        [[ $command != check ]] || options+=' --client='
        ;;
    quickstart) options='--directory --port --release --pg-path --help' ;;
    ping) options='--port --help' ;;
    *) options=--help ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    [[ ${COMPREPLY[*]} != *= ]] || compopt -o nospace
}
complete -F _repohostd repohostd
