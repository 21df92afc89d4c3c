# The API service and its migration job: `serve` (the default) and `migrate`.
#
# Two stages: packages and the dashboard's scripts are had, hashes checked, in the first; the second holds no
# pip cache, no compiler and no tests. tests/service/test_image.py runs these steps without Docker. To move to a newer base, change tag and digest together in both lines
# (`docker buildx imagetools inspect python:3.12-slim-bookworm` prints the digest).

FROM python:3.12.7-slim-bookworm@sha256:032c52613401895aa3d418a4c563d2d05f993bc3ecc065c8f4e2280978acd249 AS packages
COPY requirements/service.lock /tmp/service.lock
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/service.lock
COPY tools/web_packages.py requirements/web.json /tmp/web/
RUN python /tmp/web/web_packages.py /tmp/web/web.json /opt/web

FROM python:3.12.7-slim-bookworm@sha256:032c52613401895aa3d418a4c563d2d05f993bc3ecc065c8f4e2280978acd249
# A user without a name on the host, without a shell, who owns nothing that is executed.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin service
ENV PATH="/opt/venv/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE="1" \
    PYTHONUNBUFFERED="1" \
    PORT="8080"
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY cloud-init/ cloud-init/
COPY broker/ broker/
COPY --from=packages /opt/web broker/service/dashboard/packages
# Compiled now, since the user can't write here later: the first request mustn't pay for it.
RUN python -m compileall -q broker /opt/venv/lib
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/healthz', timeout=2)"]
ENTRYPOINT ["python", "-m", "broker.service"]
CMD ["serve"]
