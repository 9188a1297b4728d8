{{/* Egress rule to DNS, as a list item. */}}
{{- define "headrace.dnsEgress" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns.to | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - protocol: UDP
      port: {{ . }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
{{- end -}}

{{/* Egress rule to the store. Ray's own address of it may have another port. */}}
{{- define "headrace.storeEgress" -}}
{{- if eq .Values.store.mode "bundled" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "headrace.selector" (dict "root" . "component" "store") | nindent 10 }}
  ports:
    - port: 6379
{{- else -}}
{{- $external := .Values.store.external -}}
{{- $gcs := regexFind "[0-9]+$" $external.gcs.address -}}
- to:
    {{- with .Values.networkPolicy.store.to }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    {{- range list "10.0.0.0/8" "172.16.0.0/12" "192.168.0.0/16" }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
    {{- end }}
  ports:
    {{- range append $external.ports ($gcs | default (first $external.ports)) | join " " | splitList " " | uniq }}
    - port: {{ . }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* Egress rule to the hub, for init containers that fetch; nothing where no model of `sources` is fetched. */}}
{{- define "headrace.hubEgress" -}}
{{- if .fetches -}}
- to:
    {{- range .root.Values.networkPolicy.hub.cidrs }}
    - ipBlock:
        cidr: {{ . }}
        {{- if hasSuffix "/0" . }}
        {{- with $.root.Values.networkPolicy.hub.except }}
        except:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- end }}
    {{- end }}
  ports:
    - port: 443
{{- end -}}
{{- end -}}

{{/* Egress rule to the collector of traces, at its own port; nothing without one. */}}
{{- define "headrace.tracingEgress" -}}
{{- with .Values.tracing.endpoint -}}
- to:
    {{- toYaml $.Values.networkPolicy.tracing.to | nindent 4 }}
  ports:
    - port: {{ regexFind "[0-9]+$" (trimSuffix "/" .) | default "4317" }}
{{- end -}}
{{- end -}}
