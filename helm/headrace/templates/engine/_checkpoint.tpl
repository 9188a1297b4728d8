{{/*
Where a worker's checkpoint comes from. A claim and a node's folder are mounted as they are; what is fetched or made is
put into a volume by an init container. Each define takes (dict "root" $ "name" NAME "model" MODEL). SimEngine reads none.
*/}}
{{- define "headrace.checkpointVolume" -}}
{{- $checkpoint := .model.checkpoint -}}
{{- if eq .model.engine "sim" -}}
{{- else if eq $checkpoint.source "pvc" -}}
- name: checkpoint
  persistentVolumeClaim:
    claimName: {{ $checkpoint.claim | quote }}
    readOnly: true
{{- else if eq $checkpoint.source "node" -}}
{{- $fetched := include "headrace.checkpointIsFetched" .model -}}
- name: checkpoint
  hostPath:
    path: {{ ternary (dir $checkpoint.path) $checkpoint.path (not (empty $fetched)) | quote }}
    type: Directory
{{- else if $checkpoint.storageClass -}}
- name: checkpoint
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {{ $checkpoint.storageClass | quote }}
        resources:
          requests:
            storage: {{ $checkpoint.size }}
{{- else -}}
- name: checkpoint
  emptyDir:
    sizeLimit: {{ $checkpoint.size }}
{{- end -}}
{{- end -}}

{{/* "yes" where an init container brings it: from the hub, or into a node's folder that names a repository. */}}
{{- define "headrace.checkpointIsFetched" -}}
{{- $checkpoint := .checkpoint -}}
{{- if eq .engine "sim" -}}
{{- else if has $checkpoint.source (list "hub" "made") -}}
yes
{{- else if and (eq $checkpoint.source "node") $checkpoint.repository -}}
yes
{{- end -}}
{{- end -}}

{{- define "headrace.checkpointMount" -}}
{{- $checkpoint := .model.checkpoint -}}
{{- if ne .model.engine "sim" -}}
- name: checkpoint
{{- if has $checkpoint.source (list "hub" "made") }}
  mountPath: /models
{{- else }}
  mountPath: {{ include "headrace.checkpoint" .name }}
{{- end }}
  {{- if and (eq $checkpoint.source "pvc") (trimAll "/" $checkpoint.path) }}
  subPath: {{ trimAll "/" $checkpoint.path | quote }}
  {{- else if and (eq $checkpoint.source "node") (include "headrace.checkpointIsFetched" .model) }}
  # Looked up when the container starts: after the init container has given the folder its name.
  subPath: {{ base $checkpoint.path | quote }}
  {{- end }}
  readOnly: true
{{- end -}}
{{- end -}}

{{/* Size that the scheduler has to find on a node's own disk, or nothing. */}}
{{- define "headrace.checkpointOnDisk" -}}
{{- $checkpoint := .checkpoint -}}
{{- if and (ne .engine "sim") (has $checkpoint.source (list "hub" "made")) (not $checkpoint.storageClass) -}}
{{ $checkpoint.size }}
{{- end -}}
{{- end -}}

{{/* The init container. It waits for one that is at work in the same folder, and asks no hub for what is there. */}}
{{- define "headrace.checkpointInit" -}}
{{- $model := .model -}}
{{- if include "headrace.checkpointIsFetched" $model -}}
{{- $made := eq $model.checkpoint.source "made" -}}
- name: checkpoint
  {{- include "headrace.containerImage" (dict "root" .root "image" "engine") | nindent 2 }}
  command:
    {{- if $made }}
    - python
    - -m
    - cluster.models.smollm2
    {{- else }}
    - headrace
    - fetch
    - {{ $model.checkpoint.repository | default .name | quote }}
    - --wait
    {{- with $model.checkpoint.revision }}
    - --revision
    - {{ . | quote }}
    {{- end }}
    {{- end }}
    - --to
    - {{ ternary (printf "/models/%s" (base $model.checkpoint.path)) (include "headrace.checkpoint" .name) (eq $model.checkpoint.source "node") | quote }}
  env:
    - name: HOME
      value: /home/headrace
    {{- with $model.checkpoint.tokenSecret }}
    {{- if .name }}
    - name: HF_TOKEN
      valueFrom:
        secretKeyRef:
          name: {{ .name | quote }}
          key: {{ .key | quote }}
    {{- end }}
    {{- end }}
    {{- with $model.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    requests:
      cpu: 500m
      memory: {{ ternary "3Gi" "512Mi" $made }}
    limits:
      memory: {{ ternary "4Gi" "2Gi" $made }}
  securityContext:
    {{- toYaml $model.securityContext | nindent 4 }}
  volumeMounts:
    - name: checkpoint
      mountPath: /models
    - name: home
      mountPath: /home/headrace
{{- end -}}
{{- end -}}
