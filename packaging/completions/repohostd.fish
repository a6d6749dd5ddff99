# fish completion for repohostd

set -l commands serve check status learn history systemd-drop-in quickstart ping version help
set -l first "not __fish_seen_subcommand_from $commands server"
set -l server "not __fish_seen_subcommand_from quickstart ping version help"

complete -c repohostd -f
complete -c repohostd -n $first -a serve -d 'Serve the repository until a signal ends it'
complete -c repohostd -n $first -a check -d 'Say what the configuration comes to'
complete -c repohostd -n $first -a status -d 'Show sessions and clients of the running server'
complete -c repohostd -n $first -a learn -d 'Print what was learned about clients'
complete -c repohostd -n $first -a history -d 'List versions of info files or put one back'
complete -c repohostd -n $first -a systemd-drop-in -d 'Print what the systemd unit must be told'
complete -c repohostd -n $first -a quickstart -d 'Make a throw-away set-up and serve it'
complete -c repohostd -n $first -a ping -d 'Ask a server whether it is alive'
complete -c repohostd -n $first -a version -d 'Print version and releases'
complete -c repohostd -n $first -a help -d 'List the commands'

complete -c repohostd -n $server -l config -r -F -d 'Configuration file'
complete -c repohostd -n $server -l tls-server-address -x -d 'Names and addresses to listen on'
complete -c repohostd -n $server -l tls-server-port -x -d 'Port to listen on'
complete -c repohostd -n $server -l tls-server-cert-file -r -F -d 'Certificate'
complete -c repohostd -n $server -l tls-server-key-file -r -F -d 'Private key'
complete -c repohostd -n $server -l tls-server-ca-file -r -F -d 'Certificates of the authorities'
complete -c repohostd -n $server -l tls-server-auth -x -d 'Client and its stanzas'
complete -c repohostd -n $server -l log-level-console -x -a 'off error warn info detail debug trace' -d 'What standard output gets'
complete -c repohostd -n $server -l log-level-file -x -a 'off error warn info detail debug trace' -d 'What the log file gets'
complete -c repohostd -n $server -l log-path -x -a '(__fish_complete_directories)' -d 'Where the log file is'
complete -c repohostd -n $server -l release -x -d 'Release to announce'
complete -c repohostd -n $server -l repohostd-config -r -F -d 'File of its own settings'

complete -c repohostd -n '__fish_seen_subcommand_from check' -l client -x -d 'Say what the client with this name may do'
complete -c repohostd -n '__fish_seen_subcommand_from status' -l json -d 'Print what the server said'
complete -c repohostd -n '__fish_seen_subcommand_from history' -l stanza -x -d 'Only versions of this stanza'
complete -c repohostd -n '__fish_seen_subcommand_from history' -l repo -x -d 'Only versions in this repository'
complete -c repohostd -n '__fish_seen_subcommand_from history' -l restore -r -F -d 'Put this version back'
complete -c repohostd -n '__fish_seen_subcommand_from quickstart' -l directory -x -a '(__fish_complete_directories)' -d 'Where to make it'
complete -c repohostd -n '__fish_seen_subcommand_from quickstart' -l pg-path -x -a '(__fish_complete_directories)' -d 'Data directory'
complete -c repohostd -n '__fish_seen_subcommand_from quickstart' -l release -x -d 'Release to announce'
complete -c repohostd -n '__fish_seen_subcommand_from quickstart ping' -l port -x -d 'Port'
complete -c repohostd -l help -d 'Describe the command'
