{{/* The name of the chart. */}}
{{- define "hubbub.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The name of the release's objects. Pools add theirs to it, and pods add more: so it is short. */}}
{{- define "hubbub.fullname" -}}
{{- $name := include "hubbub.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Labels of an object: (dict "context" $ "component" "operator"). The name differs by component as that of the pools' gateways does. */}}
{{- define "hubbub.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
app.kubernetes.io/part-of: hubbub
app.kubernetes.io/component: {{ .component }}
{{ include "hubbub.selector" . }}
{{- with .context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Labels of a pod that a template makes. What changes with the chart alone, such as its version, must not be here: it would restart the pods.
*/}}
{{- define "hubbub.podLabels" -}}
app.kubernetes.io/part-of: hubbub
app.kubernetes.io/component: {{ .component }}
{{ include "hubbub.selector" . }}
{{- with .context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels by which pods are found: they never change. */}}
{{- define "hubbub.selector" -}}
app.kubernetes.io/name: hubbub-{{ .component }}
app.kubernetes.io/instance: {{ include "hubbub.fullname" .context }}
{{- end }}

{{- define "hubbub.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "hubbub.nats.fullname" -}}
{{ include "hubbub.fullname" . }}-nats
{{- end }}

{{/* Whether the chart runs NATS: "true" or nothing. */}}
{{- define "hubbub.nats.own" -}}
{{- if .Values.nats.url -}}
{{- else if .Values.nats.server.enabled -}}
true
{{- else -}}
{{- fail "\n\nnats.url is empty and nats.server.enabled is false, so there is no NATS: name yours in nats.url, or let the chart run one." -}}
{{- end -}}
{{- end }}

{{- define "hubbub.nats.url" -}}
{{- if include "hubbub.nats.own" . -}}
nats://{{ include "hubbub.nats.fullname" . }}.{{ .Release.Namespace }}.svc:4222
{{- else -}}
{{ .Values.nats.url }}
{{- end -}}
{{- end }}

{{/* The ports of the servers in nats.url, as a JSON list; 4222 where a server names none. */}}
{{- define "hubbub.nats.ports" -}}
{{- $ports := list -}}
{{- range splitList "," (include "hubbub.nats.url" .) -}}
{{- $ports = append $ports (regexFind ":[0-9]+/?$" (trim .) | trimAll ":/" | default "4222" | int) -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* The Service of a pool, as the operator names it: (dict "context" $ "pool" "default"). */}}
{{- define "hubbub.pool.service" -}}
{{- $name := printf "%s-%s" (include "hubbub.fullname" .context) .pool -}}
{{- if gt (len $name) 52 -}}
{{- $hash := sha256sum $name | trunc 8 -}}
{{- printf "%s-%s" ($name | trunc 43 | trimAll "-") $hash -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end }}

{{/* The port of that Service. */}}
{{- define "hubbub.pool.port" -}}
{{- $pools := .context.Values.pools -}}
{{- $own := (get $pools .pool | default dict).service | default dict -}}
{{- $default := $pools.default.service | default dict -}}
{{- $own.port | default $default.port | default 80 -}}
{{- end }}

{{/* The secret with the certificate that this pool's gateways show; nothing where members come in without TLS. */}}
{{- define "hubbub.pool.tls" -}}
{{- $pools := .context.Values.pools -}}
{{- $own := get $pools .pool | default dict -}}
{{- $tls := ternary $own.tls $pools.default.tls (and (hasKey $own "tls") (not (kindIs "invalid" $own.tls))) -}}
{{- ($tls | default dict).secretName -}}
{{- end }}

{{/* What the restricted level of Pod Security asks of a pod, and of a container. */}}
{{- define "hubbub.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hubbub.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a component's pods may be: (dict "context" $ "component" "operator" "values" .Values.operator). */}}
{{- define "hubbub.placement" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "hubbub.selector" . | nindent 8 }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "hubbub.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The variables that send traces to a collector, as a JSON list; empty without one. */}}
{{- define "hubbub.traces.env" -}}
{{- with .Values.traces }}
{{- if .endpoint -}}
{{- $variables := list (dict "name" "OTEL_EXPORTER_OTLP_ENDPOINT" "value" .endpoint) -}}
{{- $variables = append $variables (dict "name" "OTEL_EXPORTER_OTLP_PROTOCOL" "value" .protocol) -}}
{{- $variables = append $variables (dict "name" "OTEL_TRACES_SAMPLER_ARG" "value" (toString .messageRatio)) -}}
{{- toJson $variables -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}
{{- end }}

{{/* Of these variables (.add) those that others (.to) do not name, behind those: each name stands once. As a JSON list. */}}
{{- define "hubbub.env.with" -}}
{{- $all := list -}}
{{- $names := list -}}
{{- range concat (.to | default list) .add -}}
{{- if not (has .name $names) -}}
{{- $all = append $all . -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end }}

{{/* The port of the collector, which its address names or its scheme implies. */}}
{{- define "hubbub.traces.port" -}}
{{- $url := urlParse .Values.traces.endpoint -}}
{{- $implied := ternary "443" "80" (eq $url.scheme "https") -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default $implied -}}
{{- end }}

{{/* The operator's file of settings. */}}
{{- define "hubbub.settings" -}}
nats:
  url: {{ include "hubbub.nats.url" . | quote }}
  {{- if .Values.nats.gatewayCredentialsSecret.name }}
  credentialsSecret: {{ toJson .Values.nats.gatewayCredentialsSecret }}
  {{- end }}
  {{- if .Values.nats.separateInboxes }}
  inbox: _INBOX_hubbub_gateway
  {{- end }}
  {{- if .Values.nats.gatewayClientCertificateSecret.name }}
  clientCertificateSecret: {{ toJson .Values.nats.gatewayClientCertificateSecret }}
  {{- end }}
  {{- if .Values.nats.caSecret.name }}
  caSecret: {{ toJson .Values.nats.caSecret }}
  {{- end }}
pools:
  {{- range $name, $pool := .Values.pools }}
  {{- $pool := deepCopy ($pool | default dict) }}
  {{- if eq $name "default" }}
  {{- $base := dict "image" (include "hubbub.image" $) "imagePullPolicy" $.Values.image.pullPolicy "imagePullSecrets" $.Values.imagePullSecrets }}
  {{- $pool = merge $pool $base }}
  {{- end }}
  {{- if $.Values.traces.endpoint }}
  {{- /* What a pool does not say is as in default, so only what it says itself has to be added to. */}}
  {{- if or (eq $name "default") (hasKey $pool "extraEnv") }}
  {{- $env := dict "to" $pool.extraEnv "add" (include "hubbub.traces.env" $ | fromJsonArray) }}
  {{- $_ := set $pool "extraEnv" (include "hubbub.env.with" $env | fromJsonArray) }}
  {{- end }}
  {{- if or (eq $name "default") (hasKey $pool "networkPolicy") }}
  {{- $policy := $pool.networkPolicy | default dict }}
  {{- $port := dict "port" (include "hubbub.traces.port" $ | int) "protocol" "TCP" }}
  {{- $egress := append ($policy.extraEgress | default list) (dict "ports" (list $port)) }}
  {{- $_ := set $pool "networkPolicy" (merge (dict "extraEgress" $egress) $policy) }}
  {{- end }}
  {{- end }}
  {{- /* What is empty says nothing; the operator then takes the pool's default. */}}
  {{- range $key, $value := $pool }}
  {{- if or (kindIs "invalid" $value) (eq (toString $value) "") }}
  {{- $_ := unset $pool $key }}
  {{- end }}
  {{- if and (eq $key "affinity") (not $value) }}
  {{- $_ := unset $pool $key }}
  {{- end }}
  {{- end }}
  {{ $name }}:
    {{- toYaml $pool | nindent 4 }}
  {{- end }}
{{- end }}

{{/* The configuration of the chart's own NATS. */}}
{{- define "hubbub.nats.conf" }}
server_name: $POD_NAME
port: 4222
http: 8222
jetstream { store_dir: /data, max_memory_store: 64MB, max_file_store: 512MB }
{{- if gt (int .Values.nats.server.replicas) 1 }}
cluster {
  name: {{ include "hubbub.nats.fullname" . }}
  port: 6222
  no_advertise: true
  routes: [
    {{- range $index := until (int .Values.nats.server.replicas) }}
    nats://{{ include "hubbub.nats.fullname" $ }}-{{ $index }}.{{ include "hubbub.nats.fullname" $ }}-servers:6222
    {{- end }}
  ]
}
{{- end }}
{{- end }}

{{/* Annotations of what is made after a release was removed, in the order of their weights, and removed when it has done its work. */}}
{{- define "hubbub.uninstall.hook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
