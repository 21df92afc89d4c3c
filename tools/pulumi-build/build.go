//go:build tools

// Package build names what this module is for: a pinned, verifiable build of the Pulumi CLI.
// The CLI's own module can't be installed by `go install`, because it has replace directives.
package build

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
