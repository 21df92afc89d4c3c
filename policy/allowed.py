"""What this organization allows: places and sizes. Change it here, in a pull request, and nowhere else."""

from __future__ import annotations

# Where Google resources may be: near IBKR's American servers, and at tier 1 prices.
GOOGLE_REGIONS = frozenset({"us-west1", "us-central1", "us-east1", "us-east4"})
# What must outlive a region: the key of the stacks' secrets.
GOOGLE_MULTI_REGIONS = frozenset({"us"})
# DigitalOcean's American and Canadian ones.
DROPLET_REGIONS = frozenset({"nyc1", "nyc2", "nyc3", "sfo2", "sfo3", "tor1"})

# A gateway needs 2 GB; paper and live side by side 4 GB. Larger machines cost money and bring nothing.
MACHINE_TYPES = frozenset({"e2-micro", "e2-small", "e2-medium", "e2-standard-2"})
CONNECTOR_MACHINE_TYPES = frozenset({"f1-micro", "e2-micro", "e2-standard-4"})
DROPLET_SIZES = frozenset({"s-1vcpu-512mb-10gb", "s-1vcpu-1gb", "s-1vcpu-2gb", "s-2vcpu-2gb", "s-2vcpu-4gb"})
SHARED_DATABASE_TIERS = frozenset({"db-f1-micro", "db-g1-small"})
MAX_DATABASE_CPUS = 4
MAX_DATABASE_MIB = 16 * 1024
MAX_DISK_GB = 200
MAX_SERVICE_INSTANCES = 20
MAX_CONNECTOR_INSTANCES = 10

# What every resource that can carry labels must be labelled with.
LABELS = ("app", "stack", "managed-by")
LABELLED = frozenset(
    {
        "artifactregistry/repository:Repository",
        "cloudrunv2/job:Job",
        "cloudrunv2/service:Service",
        "compute/disk:Disk",
        "compute/instance:Instance",
        "kms/cryptoKey:CryptoKey",
        "secretmanager/secret:Secret",
    }
)
# What Google labels by `userLabels`.
USER_LABELLED = frozenset(
    {
        "monitoring/alertPolicy:AlertPolicy",
        "monitoring/notificationChannel:NotificationChannel",
        "monitoring/uptimeCheckConfig:UptimeCheckConfig",
    }
)
