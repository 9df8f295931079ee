{{/* What the schema of the values cannot say, because it concerns several of them: refused before anything of a release changes. */}}
{{- define "hubbub.checks" -}}
{{- range splitList "," .Values.nats.url -}}
{{- $port := regexFind ":[0-9]+/?$" (trim .) | trimAll ":/" -}}
{{- if and $port (gt (atoi $port) 65535) -}}
{{- printf "\n\nnats.url: there is no port %s: name one from 1 to 65535, or none for 4222." $port | fail -}}
{{- end -}}
{{- end -}}
{{- range $field := list "gatewayCredentialsSecret" "operatorCredentialsSecret" "caSecret" "gatewayClientCertificateSecret" "operatorClientCertificateSecret" -}}
{{- if (get $.Values.nats $field | default dict).name -}}
{{- if include "hubbub.nats.own" $ -}}
{{- printf "\n\nnats.%s is for a NATS of your own, and the chart's has neither users nor certificates: name yours in nats.url, or leave the secret out." $field | fail -}}
{{- end -}}
{{- if and (contains "@" $.Values.nats.url) (hasSuffix "CredentialsSecret" $field) -}}
{{- printf "\n\nnats.url holds a login, and nats.%s another: leave one of them out." $field | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $kind := list "CredentialsSecret" "ClientCertificateSecret" -}}
{{- $gateway := get $.Values.nats (printf "gateway%s" $kind) | default dict -}}
{{- if and $gateway.name (eq (toJson $gateway) (get $.Values.nats (printf "operator%s" $kind) | toJson)) -}}
{{- printf "\n\nnats.gateway%s and nats.operator%s are the same secret, so whoever steals a gateway's login could write policies: make a user for each (docs/operations.md, users of NATS)." $kind $kind | fail -}}
{{- end -}}
{{- end -}}
{{- range $name, $pool := .Values.pools -}}
{{- $drain := ($pool | default dict).drain | default $.Values.pools.default.drain | default dict -}}
{{- $settle := $drain.settle | default "5s" -}}
{{- $window := $drain.window | default "20s" -}}
{{- $deadline := $drain.deadline | default "30s" -}}
{{- $least := add (include "hubbub.milliseconds" $settle | atoi) (include "hubbub.milliseconds" $window | atoi) -}}
{{- if lt (include "hubbub.milliseconds" $deadline | atoi | int64) $least -}}
{{- printf "\n\npools.%s.drain.deadline: %s is before the members are away: make it at least settle plus window, %s and %s." $name $deadline $settle $window | fail -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A duration such as 1m30s, in milliseconds. */}}
{{- define "hubbub.milliseconds" -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $sum = add $sum (mul (trimSuffix $unit . | atoi) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end }}
