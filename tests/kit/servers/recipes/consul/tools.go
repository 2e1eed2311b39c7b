//go:build tools

// Package tools names the programs that the test kit builds from this module.
package tools

import (
	_ "github.com/hashicorp/consul"
)
