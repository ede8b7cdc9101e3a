# cgnrt serve in a container:
#   docker build -t cgnrt .
#   docker run --rm -p 127.0.0.1:8000:8000 -e CGNRT_TOKEN=secret cgnrt
# CPU engines only. The plan is the example's; mount your own: -v "$PWD/plans:/plans:ro" ... cgnrt serve /plans/own.plan
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip wheel --no-deps -w /wheels --config-settings=cmake.define.CGNRT_CUDA=OFF /src

FROM python:3.12-slim-bookworm
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/cgnrt-*.whl)[cpu,serve]" && rm -r /wheels \
    && useradd --create-home cgnrt && cgnrt example -o /plans/double-colored.plan
USER cgnrt
EXPOSE 8000 8001
HEALTHCHECK --interval=10s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=5)"]
# Without CGNRT_TOKEN everyone who reaches the port may ask; publish it on 127.0.0.1 only.
ENTRYPOINT ["cgnrt"]
CMD ["serve", "/plans/double-colored.plan", "--host", "0.0.0.0"]
