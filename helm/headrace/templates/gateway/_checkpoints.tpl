{{/*
What a gateway reads of its models: tokenizer, template and config. A claim is mounted; from a hub, the init container
fetches no more than these; the small test model is made. Gateways do not run where a node has weights, so for those
they fetch as from a hub.
*/}}
{{- define "headrace.claimMounts" -}}
{{- $root := . -}}
{{- range $name, $_ := .Values.models }}
{{- $checkpoint := (include "headrace.model" (dict "root" $root "name" $name) | fromYaml).checkpoint }}
{{- if eq $checkpoint.source "pvc" }}
- name: {{ include "headrace.claimVolume" $name }}
  mountPath: {{ include "headrace.checkpoint" $name }}
  {{- with trimAll "/" $checkpoint.path }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.claimVolumes" -}}
{{- $root := . -}}
{{- range $name, $_ := .Values.models }}
{{- $checkpoint := (include "headrace.model" (dict "root" $root "name" $name) | fromYaml).checkpoint }}
{{- if eq $checkpoint.source "pvc" }}
- name: {{ include "headrace.claimVolume" $name }}
  persistentVolumeClaim:
    claimName: {{ $checkpoint.claim | quote }}
    readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.claimVolume" -}}
{{- include "headrace.short" (dict "text" (printf "model-%s" (include "headrace.slug" .)) "max" 63) -}}
{{- end -}}

{{/* Init containers, one for each model that is not mounted. */}}
{{- define "headrace.gatewayInitContainers" -}}
{{- $root := . -}}
{{- range $name, $_ := .Values.models }}
{{- $checkpoint := (include "headrace.model" (dict "root" $root "name" $name) | fromYaml).checkpoint }}
{{- if ne $checkpoint.source "pvc" }}
- name: {{ include "headrace.claimVolume" $name }}
  {{- $made := eq $checkpoint.source "made" }}
  {{- include "headrace.containerImage" (dict "root" $root "image" (ternary "engine" "gateway" $made)) | nindent 2 }}
  command:
    {{- include "headrace.fetchCommand" (dict "name" $name "checkpoint" $checkpoint) | nindent 4 }}
  env:
    - name: HF_HOME
      value: /tmp/hub
    {{- with $checkpoint.tokenSecret }}
    {{- if .name }}
    - name: HF_TOKEN
      valueFrom:
        secretKeyRef:
          name: {{ .name | quote }}
          key: {{ .key | quote }}
    {{- end }}
    {{- end }}
    {{- with $root.Values.gateway.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml $root.Values.gateway.resources | nindent 4 }}
  securityContext:
    {{- toYaml $root.Values.gateway.securityContext | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    - name: models
      mountPath: /models
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.fetchCommand" -}}
{{- if eq .checkpoint.source "made" -}}
- python
- -m
- cluster.models.smollm2
{{- else -}}
- headrace
- fetch
- {{ .checkpoint.repository | default .name | quote }}
- --only
- tokenizer
{{- with .checkpoint.revision }}
- --revision
- {{ . | quote }}
{{- end }}
{{- end }}
- --to
- {{ include "headrace.checkpoint" .name }}
{{- end -}}
