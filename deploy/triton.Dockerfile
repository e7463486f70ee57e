# NVIDIA's Triton with what openai_bls imports. 26.06 is the oldest without known holes (docs/metrics.md has how to build).
ARG TRITON_TAG=26.06-py3
FROM nvcr.io/nvidia/tritonserver:${TRITON_TAG}
COPY requirements.txt /tmp/requirements.txt
# The wheel of Triton is for machines without this image.
RUN grep -v '^nvidia-pytriton' /tmp/requirements.txt > /tmp/needed.txt \
    && pip install --no-cache-dir -r /tmp/needed.txt && rm /tmp/requirements.txt /tmp/needed.txt
COPY preprocessing /opt/openai_bls/preprocessing
COPY postprocessing /opt/openai_bls/postprocessing
COPY openai_bls /opt/openai_bls/openai_bls
COPY model_repository /opt/openai_bls/model_repository
