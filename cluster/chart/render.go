// render renders a Helm chart: render CHART [VALUES…], YAML to standard output. `make chart` runs it.
//
// It is no Helm: it has what this chart's templates use (Go templates with sprig, include, tpl, toYaml, .Files.Get,
// lookup of nothing), and no dependencies, hooks or schema. Debian has Go and sprig, and no Helm.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

type object = map[string]interface{}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: render CHART [VALUES…]"))
	}
	text, err := render(os.Args[1], os.Args[2:])
	if err != nil {
		fail(err)
	}
	fmt.Print(text)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "render:", err)
	os.Exit(1)
}

func load(path string) (object, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	value := object{}
	if err := yaml.UnmarshalStrict(bytes, &value); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return value, nil
}

// merge puts over's values above base's, key by key; null removes one, as Helm does.
func merge(base, over object) object {
	for key, value := range over {
		inner, isObject := value.(object)
		below, hasObject := base[key].(object)
		switch {
		case value == nil:
			delete(base, key)
		case isObject && hasObject:
			base[key] = merge(below, inner)
		default:
			base[key] = value
		}
	}
	return base
}

// files is `.Files` of a chart.
type files string

// Get is a file's text; empty when there is none.
func (directory files) Get(name string) string {
	bytes, err := os.ReadFile(filepath.Join(string(directory), name))
	if err != nil {
		return ""
	}
	return string(bytes)
}

func functions(root *template.Template) template.FuncMap {
	named := sprig.TxtFuncMap()
	// Helm leaves these out: a chart must not depend on who renders it.
	delete(named, "env")
	delete(named, "expandenv")
	named["toYaml"] = func(value interface{}) (string, error) {
		bytes, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(bytes), "\n"), err
	}
	named["fromYaml"] = func(text string) (object, error) {
		value := object{}
		return value, yaml.Unmarshal([]byte(text), &value)
	}
	named["include"] = func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := root.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	named["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, errors.New(message)
		}
		return value, nil
	}
	named["lookup"] = func(...string) object { return object{} }
	return named
}

func render(chart string, valueFiles []string) (string, error) {
	values, err := load(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return "", err
	}
	for _, path := range valueFiles {
		more, err := load(path)
		if err != nil {
			return "", err
		}
		values = merge(values, more)
	}
	about, err := load(filepath.Join(chart, "Chart.yaml"))
	if err != nil {
		return "", err
	}
	named := object{}
	for key, value := range about {
		named[strings.ToUpper(key[:1])+key[1:]] = value
	}
	data := object{
		"Values": values, "Chart": named, "Files": files(chart),
		"Release": object{"Name": "release", "Namespace": "chunkd", "Service": "Helm", "Revision": 1},
	}
	return execute(chart, data)
}

func execute(chart string, data object) (string, error) {
	root := template.New("chart").Option("missingkey=zero")
	root.Funcs(functions(root))
	paths, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil {
		return "", err
	}
	sort.Strings(paths)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if _, err := root.New(path).Parse(string(text)); err != nil {
			return "", err
		}
	}
	var out strings.Builder
	for _, path := range paths {
		if strings.HasPrefix(filepath.Base(path), "_") {
			continue
		}
		var one bytes.Buffer
		if err := root.ExecuteTemplate(&one, path, data); err != nil {
			return "", err
		}
		text := strings.TrimSpace(strings.ReplaceAll(one.String(), "<no value>", ""))
		switch {
		case text == "":
		case strings.HasSuffix(path, ".txt"):
			// Notes are for people: they must render, and are no YAML.
			fmt.Fprintln(os.Stderr, text)
		default:
			fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", path, text)
		}
	}
	return out.String(), nil
}
