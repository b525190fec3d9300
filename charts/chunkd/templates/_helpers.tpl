{{- define "chunkd.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "chunkd.fullname" -}}
{{- $name := include "chunkd.name" . -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $whole | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "chunkd.selectorLabels" -}}
app.kubernetes.io/name: {{ include "chunkd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "chunkd.labels" -}}
{{ include "chunkd.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "chunkd.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "chunkd.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "chunkd.image" -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* Names of the files in the certificate volume, by who writes them. */}}
{{- define "chunkd.certificateFiles" -}}
{{- if eq .Values.certificates.mode "spire" -}}
certFile: /etc/chunkd/tls/svid.pem
keyFile: /etc/chunkd/tls/svid_key.pem
caFile: /etc/chunkd/tls/bundle.pem
{{- else -}}
certFile: /etc/chunkd/tls/tls.crt
keyFile: /etc/chunkd/tls/tls.key
caFile: /etc/chunkd/tls/ca.crt
{{- end -}}
{{- end -}}

{{/* The whole configuration: what a pod needs, and above it what the values say. */}}
{{- define "chunkd.configuration" -}}
{{- $cluster := dict -}}
{{- if ne .Values.certificates.mode "none" -}}
{{- $cluster = fromYaml (include "chunkd.certificateFiles" .) -}}
{{- $_ := set $cluster "seeds" (printf "%s.%s.svc:%s" (include "chunkd.fullname" .) .Release.Namespace (include "chunkd.peerPort" .)) -}}
{{- end -}}
{{- if eq .Values.zone.from "value" -}}
{{- $_ := set $cluster "zone" (required "zone.value is empty, and zone.from is value" .Values.zone.value) -}}
{{- end -}}
{{- $needed := dict "metrics" (dict "address" "0.0.0.0:4711") "log" (dict "format" "json") "cluster" $cluster -}}
{{- toYaml (mergeOverwrite $needed (deepCopy .Values.chunkd)) -}}
{{- end -}}

{{/* The port of a listening address in the configuration. */}}
{{- define "chunkd.peerPort" -}}
{{- $cluster := .Values.chunkd.cluster | default dict -}}
{{- regexFind "[0-9]+$" ($cluster.listen | default "0.0.0.0:4710") -}}
{{- end -}}
{{- define "chunkd.metricsPort" -}}
{{- $metrics := .Values.chunkd.metrics | default dict -}}
{{- regexFind "[0-9]+$" ($metrics.address | default "0.0.0.0:4711") | required "chunkd.metrics.address must have a port: the probes need it" -}}
{{- end -}}

{{- define "chunkd.trustDomain" -}}
{{- $cluster := .Values.chunkd.cluster | default dict -}}
{{- $cluster.trustDomain | default "chunkd.local" -}}
{{- end -}}

{{- define "chunkd.stateDir" -}}{{ .Values.chunkd.stateDir | default "/var/lib/chunkd" }}{{- end -}}
{{- define "chunkd.runDir" -}}{{ .Values.chunkd.runDir | default "/run/chunkd" }}{{- end -}}

{{/* What every container but those that reach the host is held to. */}}
{{- define "chunkd.unprivileged" -}}
runAsNonRoot: true
runAsUser: {{ .Values.agent.uid | int64 }}
runAsGroup: {{ .Values.agent.gid | int64 }}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Whether containerd is told of the mirror: only where it can reach it. */}}
{{- define "chunkd.mirror" -}}
{{- if .Values.containerd.mirror -}}
{{- if not .Values.hostNetwork -}}
{{- fail "containerd.mirror needs hostNetwork: a pod has a loopback address of its own, which containerd does not reach" -}}
{{- end -}}
{{- if not (dig "mirror" "enabled" false .Values.chunkd) -}}
{{- fail "containerd.mirror needs chunkd.mirror.enabled and chunkd.mirror.registries" -}}
{{- end -}}
{{- end -}}
{{- .Values.containerd.mirror -}}
{{- end -}}

{{/* What reaches the host: it puts chunkgate there. It opens no socket of the network. */}}
{{- define "chunkd.host" -}}
image: {{ include "chunkd.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - {name: HOST_DIR, value: {{ .Values.gate.hostDir | quote }}}
  - {name: STATE_DIR, value: {{ include "chunkd.stateDir" . | quote }}}
  - {name: RUN_DIR, value: {{ include "chunkd.runDir" . | quote }}}
  - {name: AGENT_USER, value: "{{ .Values.agent.uid | int64 }}:{{ .Values.agent.gid | int64 }}"}
  - {name: LEASE_SECONDS, value: {{ .Values.gate.leaseSeconds | int64 | quote }}}
  - {name: REMOVE_STATE, value: {{ .Values.gate.removeState | quote }}}
  - {name: CONTAINERD_REGISTER, value: {{ .Values.containerd.register | quote }}}
  - {name: CONTAINERD_RESTART, value: {{ .Values.containerd.restart | quote }}}
  - {name: CONTAINERD_MIRROR, value: {{ include "chunkd.mirror" . | quote }}}
  - {name: CHUNKD_CONFIG, value: /etc/chunkd/config.yaml}
securityContext:
  privileged: true
  runAsUser: 0
  runAsGroup: 0
  readOnlyRootFilesystem: true
resources: {{- toYaml .Values.gate.resources | nindent 2 }}
volumeMounts:
  - {name: host, mountPath: /host, mountPropagation: HostToContainer}
  - {name: config, mountPath: /etc/chunkd, readOnly: true}
{{- end -}}
