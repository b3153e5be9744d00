{{- define "labels" -}}
app.kubernetes.io/name: kcp-gateway
{{- end -}}

{{- define "pod" -}}
metadata:
  labels: {{- include "labels" . | nindent 4 }}
  annotations:
    # A changed configuration replaces the pods, one by one.
    checksum/config: {{ .Values.config | sha256sum }}
spec:
  serviceAccountName: kcp-gateway
  automountServiceAccountToken: false
  priorityClassName: kcp-gateway
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile:
      type: Localhost
      localhostProfile: {{ .Values.seccompProfile }}
  {{- if eq .Values.mode "daemonset" }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  nodeSelector: {{- toYaml .Values.nodeSelector | nindent 4 }}
  {{- else }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: DoNotSchedule
      labelSelector:
        matchLabels: {{- include "labels" . | nindent 10 }}
  {{- end }}
  containers:
    - name: gateway
      image: {{ .Values.image }}
      args: [run, --config, /etc/kcp-gateway/config.toml]
      env:
        {{- if eq .Values.mode "daemonset" }}
        # The node's internal address: the admin port must not face the players.
        - name: POD_IP
          valueFrom:
            fieldRef:
              fieldPath: status.podIP
        - name: KCP_GATEWAY__ADMIN__LISTEN
          value: $(POD_IP):9600
        {{- else }}
        # Reached by probes and monitoring only: the network policy keeps everybody else out.
        - name: KCP_GATEWAY__ADMIN__LISTEN
          value: "[::]:9600"
        {{- end }}
      ports:
        - name: kcp
          protocol: UDP
          containerPort: 4000
        - name: admin
          protocol: TCP
          containerPort: 9600
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 1
        failureThreshold: 30
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 2
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 1
      lifecycle:
        # New players still come until every load balancer has heard; TERM follows and drains.
        preStop:
          sleep: {seconds: {{ .Values.preStopSeconds }}}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: config
          mountPath: /etc/kcp-gateway
          readOnly: true
  volumes:
    - name: config
      configMap:
        name: kcp-gateway
{{- end -}}
